"""Initialisation and destruction: wrong numbers, wrong backend, groups replaced or left behind."""

from __future__ import annotations

import os
import threading
import weakref
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from .. import environment, names, subgroups  # noqa: TID252
from ..coordinator import GroupCoordinator  # noqa: TID252
from .registry import Original, Patch, mutant

DEFECT = "life cycle"
LEAKS = "leaks"


def initialised_with(patch: Patch, change: Any) -> None:
    """Initialise with what `change(settings)` makes of the keyword arguments."""

    @patch.around(environment, "init_distributed_environment")
    def init(original: Original, **settings: Any) -> None:
        original(**change(settings))


@mutant(DEFECT, "VD-INIT-001", issue="https://github.com/vllm-project/vllm/issues/14899")
def ranks_are_taken_from_the_environment(patch: Patch) -> None:
    """The rank that was asked for is not looked at."""
    initialised_with(patch, lambda settings: settings | {"rank": int(os.environ["RANK"])})


@mutant(DEFECT, "VD-INIT-002")
def the_default_backend_moves_nothing(patch: Patch) -> None:
    """Without a named backend one is taken that belongs to no device."""
    initialised_with(patch, lambda settings: settings | {"backend": settings["backend"] or "fake"})


@mutant(DEFECT, "VD-INIT-003")
def unknown_backends_are_replaced(patch: Patch) -> None:
    """A backend that torch does not know is replaced by the default one."""

    def known(settings: dict[str, Any]) -> dict[str, Any]:
        name = settings["backend"] or ""
        return settings | {"backend": settings["backend"] if name in dist.Backend.backend_list else None}

    initialised_with(patch, known)


@mutant(DEFECT, "VD-INIT-004")
def default_groups_of_the_caller_are_replaced(patch: Patch) -> None:
    """A default process group that is there is destroyed, and another one made."""

    @patch.around(environment, "init_distributed_environment")
    def init(original: Original, **settings: Any) -> None:
        if dist.is_initialized() and not environment.distributed_environment_is_initialized():
            dist.destroy_process_group()
        original(**settings)


@mutant(DEFECT, "VD-INIT-005")
def a_second_initialisation_is_refused(patch: Patch) -> None:
    """Initialising with the same settings is an error."""

    @patch.around(environment, "init_distributed_environment")
    def init(original: Original, **settings: Any) -> None:
        if environment.distributed_environment_is_initialized():
            raise RuntimeError("initialised already")
        original(**settings)


@mutant(DEFECT, "VD-INIT-005")
def a_second_initialisation_makes_the_world_again(patch: Patch) -> None:
    """Initialising with the same settings replaces the default process group."""

    @patch.around(environment, "init_distributed_environment")
    def init(original: Original, **settings: Any) -> None:
        if environment.distributed_environment_is_initialized():
            environment.destroy_distributed_environment()
            settings["distributed_init_method"] += "-again"
        original(**settings)


@mutant(DEFECT, "VD-INIT-006")
def another_world_size_is_ignored(patch: Patch) -> None:
    """Initialising with another size keeps the world and says nothing."""

    @patch.around(environment, "_require_same_world")
    def require_same_world(original: Original, *args: Any) -> None:
        return None


@mutant(DEFECT, "VD-INIT-006")
def another_world_size_is_refused_without_a_word(patch: Patch) -> None:
    """Initialising with another size raises an assertion that says nothing."""

    @patch.around(environment, "_require_same_world")
    def require_same_world(original: Original, *args: Any) -> None:
        try:
            original(*args)
        except RuntimeError:
            raise AssertionError from None


@mutant(DEFECT, "VD-INIT-007", issue="https://github.com/vllm-project/vllm/issues/19196")
def the_default_group_is_left_behind(patch: Patch) -> None:
    """Destruction leaves the default process group."""

    @patch.around(environment, "destroy_distributed_environment")
    def destroy(original: Original) -> None:
        environment._state.made_default_group = False  # noqa: SLF001 - what the mutant breaks
        original()


@mutant(DEFECT, "VD-INIT-008")
def destroying_the_world_twice_is_an_error(patch: Patch) -> None:
    """The second destruction raises."""

    @patch.around(environment, "destroy_distributed_environment")
    def destroy(original: Original) -> None:
        environment.get_world_group()
        original()


@mutant(DEFECT, "VD-INIT-011")
def forgotten_groups_are_destroyed_last(patch: Patch) -> None:
    """Groups are destroyed by all members together, as NCCL's, but those that nobody refers to last."""
    patch.value(names, "_groups", weakref.WeakValueDictionary())

    @patch.around(subgroups.Subgroups, "destroy")
    def destroy(original: Original, self: subgroups.Subgroups) -> None:
        dist.monitored_barrier(self.cpu_group, timedelta(seconds=2))
        original(self)


@mutant(LEAKS, "VD-INIT-009", timeout=60.0, issue="https://github.com/NVIDIA/Megatron-LM/issues/6897")
def destroyed_groups_are_kept(patch: Patch) -> None:
    """Somebody goes on referring to process groups that were destroyed."""
    kept: list[Any] = []

    @patch.around(subgroups.Subgroups, "destroy")
    def destroy(original: Original, self: subgroups.Subgroups) -> None:
        kept.append(self.cpu_group)
        original(self)


@mutant(LEAKS, "VD-INIT-009", timeout=60.0)
def each_world_leaves_a_file_open(patch: Patch) -> None:
    """Each destruction leaves one more open file."""

    @patch.around(environment, "destroy_distributed_environment")
    def destroy(original: Original) -> None:
        os.open(os.devnull, os.O_RDONLY)
        original()


@mutant(LEAKS, "VD-INIT-009", timeout=60.0)
def each_world_leaves_a_thread_running(patch: Patch) -> None:
    """Each destruction leaves one more thread."""

    @patch.around(environment, "destroy_distributed_environment")
    def destroy(original: Original) -> None:
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        original()


@mutant(DEFECT, "VD-INIT-010")
def coordinators_are_on_no_real_device(patch: Patch) -> None:
    """The device of a coordinator is not that of the rank."""

    @patch.around(GroupCoordinator, "__init__")
    def init(original: Original, self: GroupCoordinator, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self.device = torch.device("meta")


@mutant(
    "rank mapping",
    "VD-INIT-010",
    devices=("simdev",),
    issue="https://github.com/vllm-project/vllm/issues/47295",
)
def every_rank_uses_the_first_device(patch: Patch) -> None:
    """The local rank is not looked at: all ranks share one device."""
    initialised_with(patch, lambda settings: settings | {"local_rank": 0})
