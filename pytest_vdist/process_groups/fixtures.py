"""The fixtures of tests that call torch.distributed in the process groups of coordinators."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import pytest

from pytest_vdist.options import options_of

if TYPE_CHECKING:
    from pytest_vdist.fixtures import CoordinatorRun
    from pytest_vdist.implementations.protocol import Capabilities
    from pytest_vdist.process_groups.judgement import GroupRun


@pytest.fixture(scope="session")
def process_group_run(coordinator_run: CoordinatorRun, capabilities: Capabilities) -> GroupRun:
    """Run `fn(group, device, *args)` on every rank, with the device's process group of a coordinator.

    The groups are those of `coordinator_run`, and otherwise it is called alike. The test is skipped where the
    implementation declares `process_groups` as unsupported.
    """

    def run(
        fn: Callable[..., Any],
        /,
        *args: Any,
        world_size: int,
        group_ranks: list[list[int]] | None = None,
        **options: Any,
    ) -> list[Any]:
        __tracebackhide__ = True
        if not capabilities.supports("process_groups"):
            pytest.skip(f"unsupported: process_groups: {capabilities.unsupported['process_groups']}")
        return coordinator_run(
            call_with_group, fn, *args, world_size=world_size, group_ranks=group_ranks, **options
        )

    return run


@pytest.fixture(scope="session")
def process_group_limits(backend: str, request: pytest.FixtureRequest) -> Mapping[str, str]:
    """Give what the process-group backend declares not to have, with the reasons."""
    return options_of(request.config).backend_named(backend).process_group_limits


def call_with_group(coordinator: Any, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call `function(group, device, …)` in a rank, with the process group that a coordinator shows."""
    group = getattr(coordinator, "device_group", None)
    if group is None:
        raise LookupError(
            "the coordinator shows no device_group, whose operations are tested; show it, or declare "
            "'process_groups' in Capabilities.unsupported, with the reason"
        )
    return function(group, coordinator.device, *args, **kwargs)
