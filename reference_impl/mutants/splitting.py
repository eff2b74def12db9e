"""Subgroups: split off wrongly, not split off at all, or made without asking the other ranks."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import torch.distributed as dist

from .. import _compat, coordinator, environment, split_groups, subgroups  # noqa: TID252
from ..ordered_group import OrderedGroup  # noqa: TID252
from ..split_groups import SplitGroups  # noqa: TID252
from ..subgroups import GroupPlan, Subgroups  # noqa: TID252
from .registry import Original, Patch, mutant

DEFECT = "subgroups"
SPLITS = ("simdev", "cuda", "xpu")


@mutant("rank mapping", "VD-SPL-002")
def a_rank_left_out_gets_the_groups_of_the_world(patch: Patch) -> None:
    """A rank in no list takes part as if all ranks were its group."""

    @patch.around(coordinator, "create_subgroups")
    def create_subgroups(original: Original, plan: GroupPlan) -> Subgroups:
        try:
            return original(plan)
        except ValueError as error:
            if "in no group" not in str(error):
                raise
        default, ranks = dist.group.WORLD, list(range(dist.get_world_size()))
        assert default is not None, "the world has one"
        return Subgroups(ranks, default, default)


@mutant("hangs", "VD-SPL-003")
def ranks_do_not_compare_their_lists(patch: Patch) -> None:
    """Ranks that pass different lists wait for each other."""
    numbers = itertools.count()

    @patch.around(subgroups, "agree")
    def agree(original: Original, *args: Any) -> int:
        return next(numbers)


@mutant("arguments", "VD-SPL-004")
def lists_of_ranks_are_not_checked(patch: Patch) -> None:
    """Lists that overlap, repeat a rank or name one that does not exist go to torch."""

    @patch.around(subgroups, "validate_group_ranks")
    def validate_group_ranks(original: Original, *args: Any) -> None:
        return None


@mutant("arguments", "VD-SPL-004")
def ranks_beyond_the_world_are_ignored(patch: Patch) -> None:
    """A rank that the world does not have is left out of its list."""

    @patch.around(environment, "create_group")
    def create_group(original: Original, group_ranks: Any, *args: Any, **kwargs: Any) -> Any:
        size = dist.get_world_size()
        known = [[rank for rank in ranks if 0 <= rank < size] for ranks in group_ranks]
        return original([ranks for ranks in known if ranks], *args, **kwargs)


@mutant("timeouts", "VD-SPL-005", issue="https://github.com/vllm-project/vllm/issues/45078")
def device_groups_have_the_timeout_of_the_cpu(patch: Patch) -> None:
    """The two timeouts are mixed up."""

    @patch.around(coordinator, "create_subgroups")
    def create_subgroups(original: Original, plan: GroupPlan) -> Subgroups:
        return original(dataclasses.replace(plan, timeout=plan.cpu_timeout, cpu_timeout=plan.timeout))


@mutant(DEFECT, "VD-SPL-007")
def ranks_must_hold_equally_many_groups(patch: Patch) -> None:
    """Groups of the caller count too: where the ranks are in different numbers of them, no more are made."""
    held: list[dist.ProcessGroup] = []

    @patch.around(dist, "new_group")
    def new_group(original: Original, *args: Any, **kwargs: Any) -> Any:
        group = original(*args, **kwargs)
        if isinstance(group, dist.ProcessGroup):
            held.append(group)
        return group

    @patch.around(subgroups, "agree")
    def agree(original: Original, plan: str, *args: Any) -> int:
        return original(f"{plan} after {len(held)} groups", *args)


@mutant(DEFECT, "VD-SPL-008")
def a_default_group_of_the_caller_is_refused(patch: Patch) -> None:
    """Only a default process group that the library made itself is taken."""

    @patch.around(environment, "init_distributed_environment")
    def init(original: Original, *args: Any, **kwargs: Any) -> None:
        if dist.is_initialized() and not environment.distributed_environment_is_initialized():
            raise RuntimeError("there is a default process group already")
        original(*args, **kwargs)


@mutant(DEFECT, "VD-SPL-009", devices=SPLITS, split_group=True)
def unbound_default_groups_are_split(patch: Patch) -> None:
    """A default process group that is not bound to a device is not refused."""

    @patch.around(SplitGroups, "_reason_against_group")
    def reason_against_group(original: Original, self: SplitGroups, group: Any) -> None:
        return None


@mutant(DEFECT, "VD-SPL-010", devices=("cpu",))
def split_group_is_replaced_where_it_is_missing(patch: Patch) -> None:
    """Asked for split_group on a device that cannot, groups are made by new_group without a word."""

    @patch.around(environment, "init_distributed_environment")
    def init(original: Original, *args: Any, **kwargs: Any) -> None:
        device_type = kwargs["device_type"]
        if kwargs.get("split_group") and split_groups.torch_obstacle(device_type) is not None:
            kwargs["split_group"] = False
        original(*args, **kwargs)


@mutant(DEFECT, "VD-SPL-011", devices=SPLITS, split_group=True)
def ranks_name_only_their_own_group_to_torch(patch: Patch) -> None:
    """Each rank passes the list of its own group to split_group."""

    @patch.around(_compat, "split_group")
    def split_group(original: Original, parent: Any, partition: Any, **kwargs: Any) -> Any:
        own = [ranks for ranks in partition if dist.get_rank() in ranks]
        return original(parent, own or partition, **kwargs)


@mutant(DEFECT, "VD-SPL-011", devices=SPLITS, split_group=True)
def groups_are_never_split(patch: Patch) -> None:
    """The option is accepted and has no effect."""

    @patch.around(coordinator, "create_subgroups")
    def create_subgroups(original: Original, plan: GroupPlan) -> Subgroups:
        return original(dataclasses.replace(plan, split=False))


@mutant(DEFECT, "VD-SPL-012", devices=SPLITS, split_group=True)
def device_groups_keep_every_backend(patch: Patch) -> None:
    """A device group that was split off has the backend of the CPU as well."""

    @patch.around(SplitGroups, "device_group")
    def device_group(original: Original, self: SplitGroups, *args: Any) -> Any:
        return self.cpu_group(*args)


@mutant("timeouts", "VD-SPL-005", devices=SPLITS, split_group=True)
def split_groups_ignore_their_timeouts(patch: Patch) -> None:
    """Groups that were split off wait as long as the default group."""

    @patch.around(SplitGroups, "_split")
    def split(original: Original, self: SplitGroups, partition: Any, timeout: Any, *args: Any) -> Any:
        return original(self, partition, None, *args)

    @patch.around(OrderedGroup, "__init__")
    def init(original: Original, self: OrderedGroup, group: Any, ranks: Any, *args: Any) -> None:
        original(self, group, ranks)
