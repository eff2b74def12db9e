"""Limits that do not reach what they should end, and failures that ranks do not learn of."""

from __future__ import annotations

import dataclasses
import threading
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from .. import _compat, coordinator, environment, envs, subgroups  # noqa: TID252
from ..coordinator import GroupCoordinator  # noqa: TID252
from ..ordered_group import OrderedGroup  # noqa: TID252
from ..subgroups import GroupPlan, Subgroups  # noqa: TID252
from .registry import Original, Patch, mutant

DEFECT = "timeouts"
SPLITS = ("simdev", "cuda", "xpu")


def _options_replaced(patch: Patch, **changed: Any) -> None:
    @patch.around(environment, "create_group")
    def create_group(original: Original, group_ranks: Any, group_name: Any = None, **options: Any) -> Any:
        return original(group_ranks, group_name, **(changed | options))


@mutant(DEFECT, "VD-TMO-001", "VD-TMO-005", issue="https://github.com/vllm-project/vllm/pull/42968")
def groups_on_the_cpu_have_no_limit(patch: Patch) -> None:
    """The limit of CPU groups is dropped."""
    _options_replaced(patch, cpu_timeout=None)


@mutant(DEFECT, "VD-TMO-002", "VD-TMO-005", issue="https://github.com/vllm-project/vllm/issues/45078")
def subgroups_have_no_limits(patch: Patch) -> None:
    """The default process group has the limits, and groups that are made later have not."""
    _options_replaced(patch, timeout=None, cpu_timeout=None)


@mutant(DEFECT, "VD-TMO-005")
def siblings_have_no_limit(patch: Patch) -> None:
    """A second device group of the same members waits as long as the backend likes."""

    @patch.around(coordinator, "create_sibling")
    def create_sibling(original: Original, own: Subgroups, plan: GroupPlan, description: str) -> Any:
        return original(own, dataclasses.replace(plan, timeout=None), description)


@mutant(DEFECT, "VD-TMO-005", devices=SPLITS, split_group=True)
def groups_that_are_split_off_have_no_limits(patch: Patch) -> None:
    """Subgroups by split_group have the limits that torch gives them by itself."""

    @patch.around(_compat, "split_group")
    def split_group(original: Original, *args: Any, **kwargs: Any) -> Any:
        return original(*args, **(kwargs | {"timeout": None}))

    patch.value(_compat, "set_timeout", lambda *_: None)


@mutant(DEFECT, "VD-TMO-001", devices=SPLITS, split_group=True)
def messages_in_split_groups_have_no_limit(patch: Patch) -> None:
    """Up to torch 2.13 messages over the CPU know of no limit where groups are split off."""

    @patch.around(OrderedGroup, "__init__")
    def init(original: Original, self: Any, group: Any, ranks: Any, *args: Any, **kwargs: Any) -> None:
        original(self, group, ranks, *args, **kwargs)
        self.message_timeout = None


@mutant(DEFECT, "VD-TMO-001", "VD-TMO-002", "VD-TMO-005")
def seconds_are_taken_for_milliseconds(patch: Patch) -> None:
    """A limit of two seconds is over after two milliseconds."""

    @patch.around(environment, "create_group")
    def create_group(original: Original, *args: Any, **options: Any) -> Any:
        world = environment.get_world_group()
        limits = {"timeout": world.timeout, "cpu_timeout": world.cpu_timeout}
        short = {name: limit and limit / 1000 for name, limit in limits.items()}
        return original(*args, **(short | options))


@mutant(DEFECT, "VD-TMO-003", "VD-TMO-005")
def the_limits_are_swapped(patch: Patch) -> None:
    """That of the device governs the CPU, and that of the CPU the device."""

    @patch.around(environment, "create_group")
    def create_group(original: Original, *args: Any, **options: Any) -> Any:
        world = environment.get_world_group()
        return original(*args, **({"timeout": world.cpu_timeout, "cpu_timeout": world.timeout} | options))


@mutant(DEFECT, "VD-TMO-006")
def without_a_limit_it_is_zero(patch: Patch) -> None:
    """Groups whose limit nobody set give up at once."""

    @patch.around(coordinator, "create_subgroups")
    def create_subgroups(original: Original, plan: GroupPlan) -> Subgroups:
        own = original(plan)
        if plan.timeout is None:
            _compat.set_timeout(own.device_group, timedelta(0))
        if plan.cpu_timeout is None:
            _compat.set_timeout(own.cpu_group, timedelta(0))
        return own


@mutant(DEFECT, "VD-TMO-006")
def without_a_limit_for_the_device_that_of_the_cpu_holds(patch: Patch) -> None:
    """One of the limits stands in for the other."""

    @patch.around(coordinator, "create_subgroups")
    def create_subgroups(original: Original, plan: GroupPlan) -> Subgroups:
        return original(dataclasses.replace(plan, timeout=plan.timeout or plan.cpu_timeout))


@mutant(DEFECT, "VD-TMO-007", world_size=1)
def a_limit_of_zero_stands_for_none(patch: Patch) -> None:
    """Zero is taken, as if no limit had been set."""

    @patch.around(envs, "as_timeout")
    def as_timeout(original: Original, value: Any, name: str) -> Any:
        return None if value == 0 else original(value, name)


@mutant(DEFECT, "VD-TMO-008")
def initialisation_cannot_be_tried_again(patch: Patch) -> None:
    """After a rank did not come, the ranks look for each other under different names."""
    patch.value(_compat, "begin_names_again", lambda: None)


@mutant(DEFECT, "VD-TMO-001")
def making_groups_has_no_limit(patch: Patch) -> None:
    """A coordinator waits for absent ranks as long as the store does."""

    @patch.around(subgroups, "agree")
    def agree(original: Original, plan: str, obstacle: str | None, timeout: Any) -> int:
        return original(plan, obstacle, None)


@mutant("faults", "VD-FLT-001", "VD-FLT-006")
def a_failed_sum_is_the_ranks_own_tensor(patch: Patch) -> None:
    """all_reduce takes a failure for success, and returns what it was given."""

    @patch.around(GroupCoordinator, "all_reduce")
    def all_reduce(original: Original, self: Any, input_: Any) -> Any:
        try:
            return original(self, input_)
        except RuntimeError:
            return input_.clone()


@mutant("faults", "VD-FLT-002", "VD-FLT-001")
def a_failed_barrier_is_passed(patch: Patch) -> None:
    """A barrier that fails lets the rank go on."""

    @patch.around(GroupCoordinator, "barrier")
    def barrier(original: Original, self: Any) -> None:
        try:
            original(self)
        except RuntimeError:
            return


@mutant("faults", "VD-FLT-003", "VD-FLT-001")
def a_failed_broadcast_gives_the_ranks_own_object(patch: Patch) -> None:
    """Ranks that name different roots each get what they passed."""

    @patch.around(GroupCoordinator, "broadcast_object")
    def broadcast_object(original: Original, self: Any, obj: Any = None, src: int = 0) -> Any:
        try:
            return original(self, obj, src)
        except RuntimeError:
            return obj


@mutant("faults", "VD-FLT-004", "VD-FLT-001")
def a_failed_sum_is_waited_for(patch: Patch) -> None:
    """all_reduce tries for ever where it has failed."""

    @patch.around(GroupCoordinator, "all_reduce")
    def all_reduce(original: Original, self: Any, input_: Any) -> Any:
        try:
            return original(self, input_)
        except RuntimeError:
            threading.Event().wait()


@mutant("faults", "VD-FLT-005")
def groups_with_a_lost_rank_cannot_be_destroyed(patch: Patch) -> None:
    """A coordinator waits for all of its ranks before it lets go of its groups."""

    @patch.around(GroupCoordinator, "destroy")
    def destroy(original: Original, self: Any) -> None:
        if not self.is_destroyed:
            dist.barrier(group=self.cpu_group)
        original(self)


@mutant("faults", "VD-FLT-007")
def a_lost_store_looks_like_an_error_of_the_program(patch: Patch) -> None:
    """Where the store does not answer, a KeyError leaves the constructor."""

    @patch.around(subgroups, "agree")
    def agree(original: Original, *args: Any) -> int:
        try:
            return original(*args)
        except RuntimeError as error:
            raise KeyError("groups") from error
