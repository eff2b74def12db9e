"""The adapter of the reference implementation, which enters by the same door as a vendor's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_vdist.implementations.protocol import Capabilities, InitSettings
from pytest_vdist.reference_impl.environment import (
    create_group,
    destroy_distributed_environment,
    init_distributed_environment,
)

if TYPE_CHECKING:
    from pytest_vdist.implementations.protocol import Coordinator


class ReferenceImplementation:
    """The reference coordinator on torch.distributed."""

    name = "reference"

    def capabilities(self) -> Capabilities:
        return Capabilities(
            compile_modes=("eager",),
            unsupported={"split_group": "the reference creates every subgroup with new_group"},
        )

    def init(self, settings: InitSettings) -> None:
        """Make the default process group and the world. Raises what `init_distributed_environment` raises."""
        if settings.split_group:
            raise NotImplementedError(
                "the reference implementation does not create subgroups with split_group"
            )
        init_distributed_environment(
            world_size=settings.world_size,
            rank=settings.rank,
            distributed_init_method=settings.init_method,
            local_rank=settings.local_rank,
            backend=settings.backend,
            timeout=settings.timeout,
            cpu_timeout=settings.cpu_timeout,
            device_type=settings.device_type,
        )

    def coordinator(self, group_ranks: list[list[int]], *, name: str, **options: Any) -> Coordinator:
        """Make a coordinator with the world's device and timeouts; `options` go to GroupCoordinator."""
        return create_group(group_ranks, group_name=name, **options)

    def destroy(self) -> None:
        destroy_distributed_environment()
