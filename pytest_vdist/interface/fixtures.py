"""The fixture of tests that compare interfaces."""

from __future__ import annotations

from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest

from pytest_vdist.options import options_of

if TYPE_CHECKING:
    from pytest_vdist.fixtures import DistributedRun
    from pytest_vdist.implementations.protocol import Capabilities
    from pytest_vdist.implementations.spec import ImplementationSpec
    from pytest_vdist.interface.inspection import Inspection


@pytest.fixture(scope="session")
def interface_inspection(
    backend: str,
    implementation: ImplementationSpec,
    capabilities: Capabilities,
    distributed_run: DistributedRun,
    request: pytest.FixtureRequest,
) -> Inspection:
    """Give what does not fit of the coordinator's class, and of the communicators' that are to be checked.

    A process imports the classes; no rank is started, unless the implementation has no `coordinator_class`:
    then one rank makes a coordinator and looks at it.
    """
    from pytest_vdist.interface.inspection import Inspection, Question, inspect_classes  # noqa: PLC0415

    options = options_of(request.config)
    device_type = options.backend_named(backend).device_type
    found = inspect_classes(
        Question.about(implementation, device_type, options.interface or (), capabilities.unsupported)
    )
    if found.coordinator is not None:
        return found
    looked_at = distributed_run(
        look_at_coordinator,
        implementation,
        tuple(capabilities.unsupported),
        world_size=1,
        init_process_group=False,
    )
    return Inspection(looked_at[0], found.communicators)


def look_at_coordinator(implementation: ImplementationSpec, unsupported: tuple[str, ...]) -> Any:
    """Make a coordinator of this rank alone and compare it, in a rank."""
    from pytest_vdist.interface.comparison import coordinator_differences  # noqa: PLC0415
    from pytest_vdist.interface.inspection import Findings  # noqa: PLC0415
    from pytest_vdist.ranks.context import init_settings  # noqa: PLC0415

    made = implementation.load()
    with TemporaryDirectory() as folder:
        made.init(init_settings(f"file://{folder}/world"))
        coordinator = made.coordinator([[0]], name="interface")
        cls = type(coordinator)
        about = f"{cls.__module__}.{cls.__qualname__}"
        differences = coordinator_differences(coordinator, unsupported)
        coordinator.destroy()
        made.destroy()
    return Findings(about, differences)
