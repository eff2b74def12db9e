"""The adapter of the reference implementation, which enters by the same door as a vendor's."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pytest_vdist.implementations.protocol import Capabilities, InitSettings
from pytest_vdist.implementations.torch_defects import known_defects, unchecked_calls
from pytest_vdist.reference_impl import environment
from pytest_vdist.reference_impl.coordinator import GroupCoordinator
from pytest_vdist.reference_impl.custom_ops import OPERATORS
from pytest_vdist.reference_impl.platform import communicator_class
from pytest_vdist.reference_impl.split_groups import torch_obstacle

if TYPE_CHECKING:
    from pytest_vdist.implementations.protocol import Coordinator

_COMPILE_MODES = ("eager", "aot_eager", "inductor")
_COMPILE_MODES_ON_CUDA = (*_COMPILE_MODES, "cudagraph")


class ReferenceImplementation:
    """The reference coordinator on torch.distributed."""

    name = "reference"

    def capabilities(self, device_type: str) -> Capabilities:
        """Declare what this torch can do on devices of that type."""
        obstacle = torch_obstacle(device_type)
        return Capabilities(
            compile_modes=_COMPILE_MODES_ON_CUDA if device_type == "cuda" else _COMPILE_MODES,
            unsupported=known_defects(device_type) | ({} if obstacle is None else {"split_group": obstacle}),
            operators=OPERATORS,
            device_failures="abort" if device_type == "cuda" else "error",
            unchecked_calls=unchecked_calls(device_type),
        )

    def coordinator_class(self, device_type: str) -> type:  # noqa: ARG002 - one for all devices
        """Name the class that the chapter `interface` looks at."""
        return GroupCoordinator

    def communicators(self, device_type: str) -> dict[str, Callable[..., Any]]:
        """Name the communicator of the device, which the reference's coordinator calls."""
        return {"reference": communicator_class(device_type)}

    def init(self, settings: InitSettings) -> None:
        """Make the default process group and the world. Raises what `init_distributed_environment` raises."""
        environment.init_distributed_environment(
            world_size=settings.world_size,
            rank=settings.rank,
            distributed_init_method=settings.init_method,
            local_rank=settings.local_rank,
            backend=settings.backend,
            timeout=settings.timeout,
            cpu_timeout=settings.cpu_timeout,
            device_type=settings.device_type,
            split_group=settings.split_group,
        )

    def coordinator(self, group_ranks: list[list[int]], *, name: str, **options: Any) -> Coordinator:
        """Make a coordinator as the world's; `options` go to GroupCoordinator."""
        return environment.create_group(group_ranks, group_name=name, **options)

    def destroy(self) -> None:
        environment.destroy_distributed_environment()
