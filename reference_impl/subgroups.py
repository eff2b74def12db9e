"""Process groups for a coordinator: one for the device, one for the CPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import cast

import torch
import torch.distributed as dist

from . import _compat

CPU_BACKEND = "gloo"


@dataclass(frozen=True)
class Subgroups:
    """The two process groups of this rank and their members, as global ranks in the order given."""

    ranks: list[int]
    device_group: dist.ProcessGroup
    cpu_group: dist.ProcessGroup

    def destroy(self) -> None:
        """Destroy both, unless they went with the default process group."""
        if dist.is_initialized():
            dist.destroy_process_group(self.device_group)
            dist.destroy_process_group(self.cpu_group)


def validate_group_ranks(group_ranks: Sequence[Sequence[int]], world_size: int) -> None:
    """Raise ValueError unless the lists are disjoint, not empty, and of ranks 0 to `world_size` - 1."""
    if not group_ranks:
        raise ValueError("group_ranks is empty: give one list of global ranks for each group")
    for ranks in group_ranks:
        if not ranks:
            raise ValueError(f"group_ranks={group_ranks} has an empty group: leave it out")
        outside = [rank for rank in ranks if not 0 <= rank < world_size]
        if outside:
            raise ValueError(
                f"group_ranks={group_ranks} names rank(s) {outside}, and the world has 0 to "
                f"{world_size - 1}: give global ranks of the default process group"
            )
        twice = [rank for rank, count in Counter(ranks).items() if count > 1]
        if twice:
            raise ValueError(
                f"group_ranks={group_ranks} names rank(s) {twice} twice in one group: name each once"
            )
    shared = [
        rank for rank, count in Counter(rank for ranks in group_ranks for rank in ranks).items() if count > 1
    ]
    if shared:
        raise ValueError(
            f"group_ranks={group_ranks} puts rank(s) {shared} in several groups: make one coordinator for "
            "each set of disjoint groups"
        )


def create_subgroups(
    group_ranks: Sequence[Sequence[int]],
    *,
    device: torch.device,
    backend: str | None,
    timeout: timedelta | None,
    cpu_timeout: timedelta | None,
    name: str,
) -> Subgroups:
    """Make the process groups of every list in `group_ranks` and return those of this rank.

    All ranks of the world call it with the same lists. `backend` None takes that of the default process
    group; a timeout None keeps the backend's own. Raises ValueError, after all groups exist, on a rank that
    is in none.
    """
    require_default_group()
    validate_group_ranks(group_ranks, dist.get_world_size())
    rank, own = dist.get_rank(), None
    for ranks in group_ranks:
        device_group = create_device_group(ranks, backend, timeout, f"{name}:device")
        cpu_group = dist.new_group(
            list(ranks), timeout=cpu_timeout, backend=CPU_BACKEND, group_desc=f"{name}:cpu"
        )
        if rank in ranks:
            own = Subgroups(list(ranks), device_group, cpu_group)
    if own is None:
        raise ValueError(
            f"rank {rank} is in no group of {name!r}, group_ranks={[list(ranks) for ranks in group_ranks]}: "
            "add it to one, if only as a group of its own"
        )
    require_device_backend(own, device, backend, name)
    return own


def create_device_group(
    ranks: Sequence[int], backend: str | None, timeout: timedelta | None, description: str
) -> dist.ProcessGroup:
    """Make one device group; every rank of the world calls it, members or not."""
    group = dist.new_group(list(ranks), timeout=timeout, backend=backend, group_desc=description)
    return cast("dist.ProcessGroup", group)


def require_default_group() -> None:
    if not dist.is_initialized():
        raise RuntimeError(
            "there is no default process group: call init_distributed_environment() "
            "or torch.distributed.init_process_group() first"
        )


def require_device_backend(own: Subgroups, device: torch.device, backend: str | None, name: str) -> None:
    """Raise RuntimeError, and destroy the groups, where the device group cannot move tensors of `device`."""
    if _compat.backend_name(own.device_group, device) is not None:
        return
    own.destroy()
    origin = f"backend {backend!r}" if backend else "the default process group, whose backends it takes,"
    raise RuntimeError(
        f"group {name!r} cannot move tensors on {device}: {origin} has no backend for {device.type!r}; "
        f"initialise the default group for that device, or name a backend, such as "
        f"torch_distributed_backend={dist.get_default_backend_for_device(device)!r}"
    )
