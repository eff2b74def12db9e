"""Messages of tensors that go to the wrong rank, come in the wrong order, or arrive changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist

from ..communicators.base import DeviceCommunicatorBase  # noqa: TID252
from ..coordinator import GroupCoordinator  # noqa: TID252
from ..wire import as_wire  # noqa: TID252
from .registry import Original, Patch, mutant
from .tools import flip_bit

Tensor = torch.Tensor
DEFECT = "point-to-point"


@mutant(DEFECT, "VD-P2P-001")
def one_bit_from_higher_ranks_is_wrong(patch: Patch) -> None:
    """What a rank receives from a higher one has a bit of its last byte flipped."""

    @patch.around(GroupCoordinator, "recv")
    def recv(
        original: Original, self: GroupCoordinator, size: Any, dtype: torch.dtype, src: int | None = None
    ) -> Tensor:
        result: Tensor = original(self, size, dtype, src)
        return flip_bit(result, byte=-1) if src is not None and src > self.rank_in_group else result


@mutant(DEFECT, "VD-P2P-001", "VD-P2P-003")
def received_tensors_are_flat(patch: Patch) -> None:
    """A tensor of several dimensions arrives with one."""

    @patch.around(GroupCoordinator, "recv")
    def recv(original: Original, self: GroupCoordinator, *args: Any, **kwargs: Any) -> Tensor:
        return original(self, *args, **kwargs).view(-1)


@mutant(DEFECT, "VD-P2P-002")
def default_peers_are_exchanged(patch: Patch) -> None:
    """Without a peer, sends go to the previous rank and receives come from the next one."""

    @patch.around(GroupCoordinator, "send")
    def send(original: Original, self: GroupCoordinator, tensor: Tensor, dst: int | None = None) -> None:
        original(self, tensor, (self.rank_in_group - 1) % self.world_size if dst is None else dst)

    @patch.around(GroupCoordinator, "recv")
    def recv(
        original: Original, self: GroupCoordinator, size: Any, dtype: torch.dtype, src: int | None = None
    ) -> Tensor:
        return original(self, size, dtype, (self.rank_in_group + 1) % self.world_size if src is None else src)


@mutant(DEFECT, "VD-P2P-003")
def large_tensors_arrive_without_their_end(patch: Patch) -> None:
    """Elements beyond the first 2^20 are zero."""

    @patch.around(GroupCoordinator, "recv")
    def recv(original: Original, self: GroupCoordinator, *args: Any, **kwargs: Any) -> Tensor:
        result: Tensor = original(self, *args, **kwargs)
        result.view(-1)[1 << 20 :] = 0
        return result


@mutant(DEFECT, "VD-P2P-005")
def pairs_of_tensors_are_exchanged(patch: Patch) -> None:
    """Of two tensors of eight elements from one sender the second comes first."""

    @patch.around(GroupCoordinator, "recv")
    def recv(
        original: Original, self: GroupCoordinator, size: Sequence[int], dtype: Any, src: int | None = None
    ) -> Tensor:
        held = vars(self).setdefault("_held_tensors", {})
        if tuple(size) != (8,):
            return original(self, size, dtype, src)
        if src in held:
            return held.pop(src)
        held[src], second = original(self, size, dtype, src), original(self, size, dtype, src)
        return second


@mutant("rank mapping", "VD-P2P-006", world_size=4)
def peers_are_taken_for_global_ranks(patch: Patch) -> None:
    """The rank within the group is passed to torch as a global rank."""

    @patch.around(DeviceCommunicatorBase, "send")
    def send(original: Original, self: DeviceCommunicatorBase, tensor: Tensor, dst: int) -> None:
        dist.send(as_wire(tensor), dst=dst, group=self.device_group)


@mutant(DEFECT, "VD-P2P-008", world_size=3)
def tensors_come_from_any_sender(patch: Patch) -> None:
    """The first message that arrives is taken, whoever sent it."""

    @patch.around(DeviceCommunicatorBase, "recv")
    def recv(
        original: Original,
        self: DeviceCommunicatorBase,
        size: Sequence[int],
        dtype: torch.dtype,
        src: int,
    ) -> Tensor:
        tensor = torch.empty(size, dtype=dtype, device=self.device)
        if tensor.numel():
            dist.recv(as_wire(tensor), src=None, group=self.device_group)
        return tensor


@mutant("faults", "VD-FLT-006", "VD-FLT-001")
def failed_receives_give_zeros(patch: Patch) -> None:
    """Where a message does not come, recv returns zeros in its place."""

    @patch.around(GroupCoordinator, "recv")
    def recv(
        original: Original, self: GroupCoordinator, size: Any, dtype: Any, src: int | None = None
    ) -> Tensor:
        try:
            return original(self, size, dtype, src)
        except RuntimeError:
            return torch.zeros(size, dtype=dtype, device=self.device)
