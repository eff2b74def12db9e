"""The world and the groups of an example, from what torchrun put into the environment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .. import simdev  # noqa: TID252
from ..environment import (  # noqa: TID252
    destroy_distributed_environment,
    get_world_group,
    init_distributed_environment,
)
from ..model_parallel import (  # noqa: TID252
    destroy_model_parallel,
    get_dp_group,
    get_ep_group,
    get_pp_group,
    get_tp_group,
    initialize_model_parallel,
)
from .layouts import Layout, ParallelGroup, ParallelGroups


@contextmanager
def parallel_environment(device_type: str | None = None) -> Iterator[ParallelGroup]:
    """Make the default process group, and give the world's coordinator until the end of the context.

    torch picks the backend by device, None for torch's accelerator, or the CPU. With
    VDIST_DISTRIBUTED_USE_SPLIT_GROUP=1 it is a backend for the CPU as well, bound to the device. Raises what
    `init_distributed_environment` raises.
    """
    if device_type == simdev.DEVICE_TYPE:
        simdev.register()
    init_distributed_environment(device_type=device_type)
    try:
        yield get_world_group()
    finally:
        destroy_distributed_environment()


@contextmanager
def groups_for(layout: Layout) -> Iterator[ParallelGroups]:
    """Make the groups of a layout, until the end of the context. Raises ValueError for wrong sizes."""
    initialize_model_parallel(layout.tensor, layout.pipeline, layout.data)
    try:
        yield ParallelGroups(
            get_world_group(), get_tp_group(), get_pp_group(), get_dp_group(), get_ep_group()
        )
    finally:
        destroy_model_parallel()
