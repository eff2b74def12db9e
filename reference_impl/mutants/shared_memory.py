"""Shared memory: taken for granted, left behind, or believed before it was written."""

from __future__ import annotations

from typing import Any

import torch

from ..communicators import cpu  # noqa: TID252
from ..communicators.cpu import CpuCommunicator  # noqa: TID252
from ..communicators.shm.loans import Lender, Loan  # noqa: TID252
from ..communicators.shm.members import SharedMembers  # noqa: TID252
from ..communicators.shm.records import Call, Operation  # noqa: TID252
from ..coordinator import GroupCoordinator  # noqa: TID252
from ..envs import SHARED_MEMORY  # noqa: TID252
from .registry import Original, Patch, mutant
from .tools import without_tail

DEFECT = "shared memory"
NEEDS: dict[str, Any] = {"devices": ("cpu",), "environment": ((SHARED_MEMORY, "1"),), "timeout": 60.0}
ACROSS_NODES = "https://github.com/vllm-project/vllm/issues/37933"


@mutant(DEFECT, "VD-INIT-009", **NEEDS)
def shared_memory_is_left_behind(patch: Patch) -> None:
    """Destroyed groups keep their segments and connections."""
    kept: list[Any] = []

    @patch.around(CpuCommunicator, "destroy")
    def destroy(original: Original, self: CpuCommunicator) -> None:
        kept.append((self._shared, self._mailbox))
        self._shared = self._mailbox = None
        original(self)


@mutant(DEFECT, "VD-NODE-001", world_size=4, issue=ACROSS_NODES, **NEEDS)
def groups_across_nodes_are_refused(patch: Patch) -> None:
    """Where ranks share no memory, no group of the CPU can be made."""

    @patch.around(cpu, "connect")
    def connect(original: Original, *args: Any) -> Any:
        connected = original(*args)
        if isinstance(connected, str):
            raise RuntimeError(connected)
        return connected


@mutant(DEFECT, "VD-NODE-002", world_size=4, issue=ACROSS_NODES, **NEEDS)
def dictionaries_need_shared_memory(patch: Patch) -> None:
    """Where ranks share no memory, dictionaries cannot be sent."""

    @patch.around(GroupCoordinator, "isend_tensor_dict")
    def isend_tensor_dict(original: Original, self: GroupCoordinator, *args: Any, **kwargs: Any) -> Any:
        obstacle = getattr(self.device_communicator, "shared_memory_obstacle", None)
        if obstacle is not None:
            raise RuntimeError(f"cannot send a dictionary: {obstacle}")
        return original(self, *args, **kwargs)


@mutant(DEFECT, "VD-AR-007", **NEEDS)
def shared_sums_end_with_the_segment(patch: Patch) -> None:
    """Sums over shared memory are zero beyond a multiple of 16384 elements."""

    @patch.around(CpuCommunicator, "all_reduce")
    def all_reduce(original: Original, self: CpuCommunicator, input_: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = original(self, input_)
        return result if self.shared_memory_obstacle else without_tail(result, block=1 << 14)


@mutant(DEFECT, "VD-AR-005", issue="https://github.com/vllm-project/vllm/issues/58154", **NEEDS)
def shared_sums_stay_in_the_segment(patch: Patch) -> None:
    """Sums over shared memory are returned where they were made, which the next one overwrites."""

    @patch.around(CpuCommunicator, "all_reduce")
    def all_reduce(original: Original, self: CpuCommunicator, input_: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = original(self, input_)
        if self.shared_memory_obstacle or not result.numel():
            return result
        segment = vars(self).setdefault("_segment", {}).setdefault(result.dtype, result)
        if segment.numel() != result.numel():
            return result
        return segment.view(result.shape).copy_(result)


@mutant(DEFECT, "VD-TD-008", **NEEDS)
def memory_is_lent_again_while_it_is_used(patch: Patch) -> None:
    """A large dictionary is written over the one before it, which the receiver may still have."""

    @patch.around(Lender, "lend_again")
    def lend_again(original: Original, self: Lender, size: int) -> Loan | None:
        self.take_back([(number, True) for number in list(self._out)])
        loan: Loan | None = original(self, size)
        return loan


@mutant(DEFECT, "VD-OBJ-005", **NEEDS)
def shared_objects_end_with_the_first_step(patch: Patch) -> None:
    """What does not fit in the step in which an object's size comes is zero."""

    @patch.around(SharedMembers, "_broadcast")
    def broadcast(original: Original, self: SharedMembers, flat: torch.Tensor, src: int, call: Call) -> None:
        if call.operation is not Operation.BROADCAST_OBJECT:
            original(self, flat, src, call)
        elif self.rank_in_group != src:
            flat.zero_()
