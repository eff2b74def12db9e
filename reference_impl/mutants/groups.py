"""Groups with the wrong members, order, names or traffic."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
import torch.distributed as dist

from .. import coordinator, environment, names  # noqa: TID252
from ..coordinator import GroupCoordinator  # noqa: TID252
from ..ordered_group import OrderedGroup  # noqa: TID252
from ..subgroups import GroupPlan, Subgroups  # noqa: TID252
from .registry import Original, Patch, mutant

DEFECT = "groups"
MAPPING = "rank mapping"
Tensor = torch.Tensor


def _is_the_world(group: OrderedGroup | GroupCoordinator) -> bool:
    return group.world_size == dist.get_world_size()


@mutant(MAPPING, "VD-GRP-001")
def ranks_of_the_world_are_listed_backwards(patch: Patch) -> None:
    """The group of all ranks lists them in descending order."""

    @patch.around(environment, "create_group")
    def create_group(original: Original, group_ranks: Any, *args: Any, **kwargs: Any) -> GroupCoordinator:
        everyone = [list(range(dist.get_world_size()))]
        return original([everyone[0][::-1]] if group_ranks == everyone else group_ranks, *args, **kwargs)


@mutant(
    DEFECT, "VD-GRP-002", "VD-AR-001", world_size=4, issue="https://github.com/vllm-project/vllm/issues/3401"
)
def subgroups_sum_over_the_world(patch: Patch) -> None:
    """The group is not passed on: every sum is one over all ranks."""

    @patch.around(GroupCoordinator, "all_reduce")
    def all_reduce(original: Original, self: GroupCoordinator, input_: Tensor) -> Tensor:
        world = environment.get_world_group()
        return original(self if self.world_size == 1 else world, input_)


@mutant(
    DEFECT, "VD-GRP-003", "VD-AG-001", world_size=4, issue="https://github.com/vllm-project/vllm/issues/32705"
)
def subgroups_gather_from_the_first_ranks_of_the_world(patch: Patch) -> None:
    """A subgroup gathers from the ranks 0 to its size - 1 of the world."""

    @patch.around(GroupCoordinator, "all_gather")
    def all_gather(original: Original, self: GroupCoordinator, input_: Tensor, dim: int = -1) -> Tensor:
        if self.world_size == 1 or _is_the_world(self):
            return original(self, input_, dim)
        result: Tensor = original(environment.get_world_group(), input_, dim)
        return result.narrow(dim, 0, input_.shape[dim] * self.world_size)


@mutant(MAPPING, "VD-GRP-004", "VD-SPL-001")
def parts_come_in_the_order_of_torch(patch: Patch) -> None:
    """torch sorts the ranks of a group, and nothing puts the parts back into the order given."""

    @patch.around(OrderedGroup, "__init__")
    def init(original: Original, self: OrderedGroup, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self._torch_row = self._given_row = list(range(self.world_size))


@mutant(MAPPING, "VD-GRP-004", "VD-SPL-001")
def ranks_of_groups_are_sorted(patch: Patch) -> None:
    """The order in which a group lists its ranks is not kept."""

    @patch.around(environment, "create_group")
    def create_group(original: Original, group_ranks: Any, *args: Any, **kwargs: Any) -> GroupCoordinator:
        return original([sorted(ranks) for ranks in group_ranks], *args, **kwargs)


@mutant("arguments", "VD-GRP-005", "VD-SPL-002", world_size=3)
def a_rank_in_no_group_gets_one_of_its_own(patch: Patch) -> None:
    """A rank that no list names is added as a group of one."""

    @patch.around(environment, "create_group")
    def create_group(original: Original, group_ranks: Any, *args: Any, **kwargs: Any) -> GroupCoordinator:
        left_out = sorted(
            set(range(dist.get_world_size())) - {rank for ranks in group_ranks for rank in ranks}
        )
        return original([*group_ranks, *([rank] for rank in left_out)], *args, **kwargs)


@mutant("arguments", "VD-GRP-005", world_size=3)
def a_rank_in_no_group_gets_an_empty_error(patch: Patch) -> None:
    """The error for a rank in no group is an assertion that says nothing."""

    @patch.around(GroupCoordinator, "__init__")
    def init(original: Original, self: GroupCoordinator, *args: Any, **kwargs: Any) -> None:
        try:
            original(self, *args, **kwargs)
        except ValueError:
            raise AssertionError from None


@mutant(MAPPING, "VD-GRP-007")
def next_rank_does_not_wrap_around(patch: Patch) -> None:
    """The last rank is its own next one."""
    patch.value(
        GroupCoordinator,
        "next_rank",
        property(lambda self: self.ranks[min(self.rank_in_group + 1, self.world_size - 1)]),
    )


@mutant(MAPPING, "VD-GRP-007")
def previous_rank_is_one_within_the_group(patch: Patch) -> None:
    """prev_rank is not a global rank."""
    patch.value(
        GroupCoordinator, "prev_rank", property(lambda self: (self.rank_in_group - 1) % self.world_size)
    )


@mutant(MAPPING, "VD-GRP-007")
def last_rank_is_the_largest(patch: Patch) -> None:
    """last_rank is the largest of the list, not the last."""
    patch.value(GroupCoordinator, "last_rank", property(lambda self: max(self.ranks)))


@mutant(DEFECT, "VD-GRP-008")
def names_are_not_counted(patch: Patch) -> None:
    """Coordinators for which one name is asked get one name."""

    @patch.around(names, "next_name")
    def next_name(original: Original, name: str) -> str:
        original(name)
        return name


@mutant(DEFECT, "VD-GRP-008")
def each_rank_has_names_of_its_own(patch: Patch) -> None:
    """The name of a coordinator holds the rank."""

    @patch.around(names, "next_name")
    def next_name(original: Original, name: str) -> str:
        return f"{original(name)}@{dist.get_rank()}"


@mutant("life cycle", "VD-INIT-007", "VD-GRP-008", "VD-PRG-002")
def names_go_on_counting_in_the_next_world(patch: Patch) -> None:
    """Ranks that made different numbers of groups in one world disagree on names in the next."""

    @patch.around(names, "reset")
    def reset(original: Original) -> None:
        return None


@mutant(DEFECT, "VD-GRP-009", "VD-SPL-001", world_size=4)
def groups_of_one_size_share_a_buffer(patch: Patch) -> None:
    """All coordinators of a process return their sums in the same memory."""
    buffers: dict[Any, Tensor] = {}

    @patch.around(GroupCoordinator, "all_gather")
    def all_gather(original: Original, self: GroupCoordinator, *args: Any, **kwargs: Any) -> Tensor:
        result: Tensor = original(self, *args, **kwargs)
        first = buffers.setdefault(tuple(result.shape), result)
        other_group = vars(self).setdefault("_gathered", False)
        vars(self)["_gathered"] = True
        return first if other_group and first.dtype == result.dtype else result


@mutant("life cycle", "VD-SPL-006", issue="https://github.com/vllm-project/vllm-ascend/issues/7654")
def groups_of_the_same_ranks_are_shared(patch: Patch) -> None:
    """Coordinators over the same ranks have the same process groups, which the first to go destroys."""
    made: dict[str, tuple[Subgroups, Any]] = {}

    @patch.around(coordinator, "create_subgroups")
    def create_subgroups(original: Original, plan: GroupPlan) -> Subgroups:
        key = repr(plan.group_ranks)
        if key not in made or made[key][1] is not dist.group.WORLD:
            made[key] = original(plan), dist.group.WORLD
        return made[key][0]


@mutant("use after destroy", "VD-GRP-010")
def destroying_does_nothing(patch: Patch) -> None:
    """A destroyed coordinator works on."""

    @patch.around(GroupCoordinator, "destroy")
    def destroy(original: Original, self: GroupCoordinator) -> None:
        return None


@mutant("use after destroy", "VD-GRP-010")
def destroyed_coordinators_do_not_say_so(patch: Patch) -> None:
    """Using a destroyed coordinator raises what Python makes of a missing attribute."""

    @patch.around(GroupCoordinator, "_living")
    def living(original: Original, self: GroupCoordinator) -> Subgroups:
        if self.is_destroyed:
            raise AttributeError("'NoneType' object has no attribute 'cpu_group'")
        return original(self)


@mutant("use after destroy", "VD-GRP-010")
def destroying_a_coordinator_twice_is_an_error(patch: Patch) -> None:
    """The second call raises."""

    @patch.around(GroupCoordinator, "destroy")
    def destroy(original: Original, self: GroupCoordinator) -> None:
        if self.is_destroyed:
            raise RuntimeError(f"group {self.unique_name!r} was destroyed already")
        original(self)


@mutant("use after destroy", "VD-GRP-010")
def sums_of_a_destroyed_coordinator_are_its_inputs(patch: Patch) -> None:
    """After destruction all_reduce quietly returns what it was given."""

    @patch.around(GroupCoordinator, "all_reduce")
    def all_reduce(original: Original, self: GroupCoordinator, input_: Tensor) -> Tensor:
        return input_ if self.is_destroyed else original(self, input_)


@mutant("timeouts", "VD-SPL-005", issue="https://github.com/vllm-project/vllm/issues/45078")
def subgroups_ignore_both_timeouts(patch: Patch) -> None:
    """Timeouts are given to the default process group only; subgroups have those of the backend."""

    @patch.around(coordinator, "create_subgroups")
    def create_subgroups(original: Original, plan: GroupPlan) -> Subgroups:
        return original(dataclasses.replace(plan, timeout=None, cpu_timeout=None))


@mutant("aliasing", "VD-BAR-004")
def a_broadcast_overwrites_the_last_sum(patch: Patch) -> None:
    """What the group summed last is zero once it broadcasts: both use one buffer."""

    @patch.around(GroupCoordinator, "all_reduce")
    def all_reduce(original: Original, self: GroupCoordinator, input_: Tensor) -> Tensor:
        result: Tensor = original(self, input_)
        vars(self)["_last_sum"] = result
        return result

    @patch.around(GroupCoordinator, "broadcast")
    def broadcast(original: Original, self: GroupCoordinator, input_: Tensor, src: int = 0) -> Tensor:
        last = vars(self).pop("_last_sum", None)
        if last is not None and last.data_ptr() != input_.data_ptr():
            last.zero_()
        return original(self, input_, src)


@mutant("values", "VD-PRG-001")
def sums_after_a_gather_are_one_too_large(patch: Patch) -> None:
    """The first sum after a gather of the same group is one too large."""

    @patch.around(GroupCoordinator, "all_gather")
    def all_gather(original: Original, self: GroupCoordinator, *args: Any, **kwargs: Any) -> Tensor:
        vars(self)["_has_gathered"] = True
        return original(self, *args, **kwargs)

    @patch.around(GroupCoordinator, "all_reduce")
    def all_reduce(original: Original, self: GroupCoordinator, input_: Tensor) -> Tensor:
        result: Tensor = original(self, input_)
        return result + 1 if vars(self).pop("_has_gathered", False) else result
