"""Barriers that let ranks through, wait for the wrong ones, or leave something behind."""

from __future__ import annotations

import os
import threading

import torch
import torch.distributed as dist

from ..coordinator import GroupCoordinator  # noqa: TID252
from .registry import Original, Patch, mutant

DEFECT = "barriers"


@mutant(DEFECT, "VD-BAR-001")
def barrier_does_nothing(patch: Patch) -> None:
    """Nobody waits for anybody."""

    @patch.around(GroupCoordinator, "barrier")
    def barrier(original: Original, self: GroupCoordinator) -> None:
        return None


@mutant(DEFECT, "VD-BAR-001")
def barrier_waits_for_the_first_rank_only(patch: Patch) -> None:
    """Everybody waits for rank 0, which waits for nobody."""

    @patch.around(GroupCoordinator, "barrier")
    def barrier(original: Original, self: GroupCoordinator) -> None:
        self.broadcast_object(None, 0)


@mutant(DEFECT, "VD-BAR-001")
def only_the_first_rank_waits_in_the_barrier(patch: Patch) -> None:
    """Rank 0 waits for all others, which go on."""

    @patch.around(GroupCoordinator, "barrier")
    def barrier(original: Original, self: GroupCoordinator) -> None:
        if self.world_size == 1:
            original(self)
        elif self.rank_in_group:
            self.isend_object(None, 0)
        else:
            for rank in range(1, self.world_size):
                self.recv_object(rank)


@mutant(DEFECT, "VD-BAR-001", world_size=3)
def barrier_waits_for_one_neighbour(patch: Patch) -> None:
    """Each rank waits for the rank before it."""

    @patch.around(GroupCoordinator, "barrier")
    def barrier(original: Original, self: GroupCoordinator) -> None:
        if self.world_size == 1:
            return original(self)
        self.isend_object(None, (self.rank_in_group + 1) % self.world_size)
        self.recv_object((self.rank_in_group - 1) % self.world_size)
        return None


@mutant(DEFECT, "VD-BAR-002", world_size=4, issue="https://github.com/vllm-project/vllm/issues/3401")
def barrier_is_that_of_the_world(patch: Patch) -> None:
    """The group is not passed on: the barrier waits for every rank there is."""

    @patch.around(GroupCoordinator, "barrier")
    def barrier(original: Original, self: GroupCoordinator) -> None:
        dist.barrier()


@mutant(DEFECT, "VD-BAR-003")
def barrier_of_one_rank_waits_for_the_world(patch: Patch) -> None:
    """A group of one rank is taken for the group of all."""

    @patch.around(GroupCoordinator, "barrier")
    def barrier(original: Original, self: GroupCoordinator) -> None:
        if self.world_size == 1:
            dist.barrier()
        else:
            original(self)


@mutant(DEFECT, "VD-BAR-004")
def barrier_leaves_a_message_to_the_next_rank(patch: Patch) -> None:
    """The next message from the same rank is received in place of the one that is due."""

    @patch.around(GroupCoordinator, "barrier")
    def barrier(original: Original, self: GroupCoordinator) -> None:
        if self.world_size > 1:
            stray = torch.zeros(4, device=self.device)
            kept = vars(self).setdefault("_strays", [])
            kept.append(dist.isend(stray, dst=self.next_rank, group=self.device_group))
        original(self)


@mutant("leaks", "VD-BAR-005")
def barrier_leaves_a_file_open(patch: Patch) -> None:
    """Each barrier opens a file that stays."""

    @patch.around(GroupCoordinator, "barrier")
    def barrier(original: Original, self: GroupCoordinator) -> None:
        original(self)
        os.open(os.devnull, os.O_RDONLY)


@mutant("leaks", "VD-BAR-005")
def barrier_leaves_a_thread_running(patch: Patch) -> None:
    """Each barrier starts a thread that never ends."""

    @patch.around(GroupCoordinator, "barrier")
    def barrier(original: Original, self: GroupCoordinator) -> None:
        original(self)
        threading.Thread(target=threading.Event().wait, daemon=True).start()
