"""Process groups for a coordinator: one for the device, one for the CPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Protocol

import torch
import torch.distributed as dist

from . import _compat
from .agreement import agree
from .connections import connect
from .failures import GroupScope, naming
from .new_groups import NewGroups
from .split_groups import SplitGroups


class GroupMaker(Protocol):
    """A way to make process groups. Every rank of the world calls it with the same lists of global ranks.

    Each rank gets the group of its own list, and None where it is in none. `description` is what torch shows;
    `key` is the same on all ranks and never used before.
    """

    def obstacle(self) -> str | None: ...
    def device_group(
        self, partition: Sequence[Sequence[int]], timeout: timedelta | None, description: str, key: str
    ) -> dist.ProcessGroup | None: ...
    def cpu_group(
        self, partition: Sequence[Sequence[int]], timeout: timedelta | None, description: str, key: str
    ) -> dist.ProcessGroup | None: ...


@dataclass(frozen=True)
class GroupPlan:
    """The process groups of a coordinator, for all lists of ranks in `group_ranks`.

    `backend` None takes that of the default process group; a timeout None keeps the backend's own. `split`
    says whether they are made by `split_group` or by `new_group`, `connect` whether the members of the device
    group are connected at once or by their first messages.
    """

    name: str
    group_ranks: list[list[int]]
    device: torch.device
    backend: str | None
    timeout: timedelta | None
    cpu_timeout: timedelta | None
    split: bool
    connect: bool = True

    @cached_property
    def maker(self) -> GroupMaker:
        return SplitGroups(self.device, self.backend) if self.split else NewGroups(self.backend)

    def own_ranks(self, rank: int) -> list[int]:
        return next(list(ranks) for ranks in self.group_ranks if rank in ranks)

    def text(self, description: str) -> str:
        """Describe what must be the same on every rank."""
        way = "split_group" if self.split else "new_group"
        backend = "" if self.backend is None else f" with backend {self.backend!r}"
        return f"the groups {self.group_ranks} of {description!r} by {way}{backend}"


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


def create_subgroups(plan: GroupPlan) -> Subgroups:
    """Make the process groups of every list of the plan and return those of this rank.

    All ranks of the world call it with the same plan, but for the device's index. Raises, before any group is
    made and on all ranks alike, ValueError for lists that are wrong or differ between ranks, and RuntimeError
    where torch or the default process group cannot do it; ValueError, after all groups exist, on a rank that
    is in none.
    """
    number = _agreed(plan, plan.name)
    device_group = plan.maker.device_group(
        plan.group_ranks, plan.timeout, f"{plan.name}:device", f"{plan.name}:device:{number}"
    )
    cpu_group = plan.maker.cpu_group(
        plan.group_ranks, plan.cpu_timeout, f"{plan.name}:cpu", f"{plan.name}:cpu:{number}"
    )
    if device_group is None or cpu_group is None:
        raise ValueError(
            f"rank {dist.get_rank()} is in no group of {plan.name!r}, group_ranks={plan.group_ranks}: "
            "add it to one, if only as a group of its own"
        )
    own = Subgroups(plan.own_ranks(dist.get_rank()), device_group, cpu_group)
    require_device_backend(own, plan)
    try:
        if plan.connect:
            connect(own.device_group, plan.device)
        _await_members(own, plan)
    except BaseException:
        own.destroy()
        raise
    return own


def _await_members(own: Subgroups, plan: GroupPlan) -> None:
    """Wait until every member has made the groups too, so that any of them may be the first to destroy them.

    gloo is done with its part of a group before the others are with theirs, and these raise where it closes
    its connections meanwhile.
    """
    scope = GroupScope(plan.name, dist.get_rank(), "cpu_timeout", plan.cpu_timeout)
    with naming("making the process groups", scope):
        dist.barrier(group=own.cpu_group)


def create_sibling(own: Subgroups, plan: GroupPlan, description: str) -> dist.ProcessGroup:
    """Make a second device group for every list of the plan and return that of this rank, a member."""
    number = _agreed(plan, description)
    group = plan.maker.device_group(
        plan.group_ranks, plan.timeout, description, f"{plan.name}:sibling:{number}"
    )
    assert group is not None, "ranks in no group have no coordinator to ask"
    _await_members(own, plan)
    return group


def _agreed(plan: GroupPlan, description: str) -> int:
    """Make sure that all ranks are about to make the same groups, and that these are groups of the world."""
    require_default_group()
    number = agree(plan.text(description), plan.maker.obstacle(), plan.cpu_timeout)
    validate_group_ranks(plan.group_ranks, dist.get_world_size())
    return number


def require_default_group() -> None:
    if not dist.is_initialized():
        raise RuntimeError(
            "there is no default process group: call init_distributed_environment() "
            "or torch.distributed.init_process_group() first"
        )


def require_device_backend(own: Subgroups, plan: GroupPlan) -> None:
    """Raise RuntimeError, and destroy the groups, where the device group cannot move the device's tensors."""
    if _compat.backend_name(own.device_group, plan.device) is not None:
        return
    own.destroy()
    backend, device = plan.backend, plan.device
    origin = f"backend {backend!r}" if backend else "the default process group, whose backends it takes,"
    raise RuntimeError(
        f"group {plan.name!r} cannot move tensors on {device}: {origin} has no backend for {device.type!r}; "
        f"initialise the default group for that device, or name a backend, such as "
        f"torch_distributed_backend={dist.get_default_backend_for_device(device)!r}"
    )
