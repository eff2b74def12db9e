"""Objects that arrive changed, cut off, at the wrong rank or in the wrong order."""

from __future__ import annotations

import threading
from typing import Any

import torch
import torch.distributed as dist

from .. import handles, objects  # noqa: TID252
from ..coordinator import GroupCoordinator  # noqa: TID252
from ..ordered_group import OrderedGroup  # noqa: TID252
from .registry import Original, Patch, mutant

DEFECT = "objects"
Tensor = torch.Tensor


@mutant(DEFECT, "VD-OBJ-001", "VD-OBJ-004")
def tuples_arrive_as_lists(patch: Patch) -> None:
    """Objects travel in a format that knows no tuples."""

    @patch.around(objects, "load")
    def load(original: Original, data: Tensor) -> Any:
        obj = original(data)
        return list(obj) if type(obj) is tuple else obj


@mutant("rank mapping", "VD-OBJ-002")
def broadcast_objects_come_from_the_first_rank(patch: Patch) -> None:
    """`src` is not looked at."""

    @patch.around(GroupCoordinator, "broadcast_object")
    def broadcast_object(original: Original, self: GroupCoordinator, obj: Any = None, src: int = 0) -> Any:
        return original(self, obj, src * 0)


@mutant("rank mapping", "VD-OBJ-002", world_size=4)
def sources_of_objects_are_global_ranks(patch: Patch) -> None:
    """In a subgroup that has such a global rank, that one is the source."""

    @patch.around(GroupCoordinator, "broadcast_object")
    def broadcast_object(original: Original, self: GroupCoordinator, obj: Any = None, src: int = 0) -> Any:
        return original(self, obj, self.ranks.index(src) if src in self.ranks else src)


@mutant(DEFECT, "VD-OBJ-003")
def lists_of_objects_are_not_overwritten(patch: Patch) -> None:
    """The source's list is returned, and the caller's list stays."""

    @patch.around(GroupCoordinator, "broadcast_object_list")
    def broadcast_object_list(
        original: Original, self: GroupCoordinator, obj_list: list[Any], src: int = 0
    ) -> list[Any]:
        return original(self, list(obj_list), src)


@mutant(DEFECT, "VD-OBJ-003")
def lists_of_objects_arrive_backwards(patch: Patch) -> None:
    """Other ranks than the source hold the objects in reverse order."""

    @patch.around(GroupCoordinator, "broadcast_object_list")
    def broadcast_object_list(
        original: Original, self: GroupCoordinator, obj_list: list[Any], src: int = 0
    ) -> list[Any]:
        result: list[Any] = original(self, obj_list, src)
        if self.rank_in_group != src:
            result.reverse()
        return result


@mutant(DEFECT, "VD-OBJ-004")
def objects_from_higher_ranks_arrive_as_text(patch: Patch) -> None:
    """What a rank receives from a higher one is its text."""

    @patch.around(GroupCoordinator, "recv_object")
    def recv_object(original: Original, self: GroupCoordinator, src: int) -> Any:
        obj = original(self, src)
        return str(obj) if src > self.rank_in_group else obj


@mutant(DEFECT, "VD-OBJ-005")
def large_objects_are_cut_off(patch: Patch) -> None:
    """Of bytes only the first four megabytes arrive."""

    @patch.around(objects, "load")
    def load(original: Original, data: Tensor) -> Any:
        obj = original(data)
        return obj[: 4 << 20] if isinstance(obj, bytes) else obj


@mutant(DEFECT, "VD-OBJ-005")
def empty_objects_arrive_as_none(patch: Patch) -> None:
    """Bytes of length zero are taken for nothing."""

    @patch.around(objects, "load")
    def load(original: Original, data: Tensor) -> Any:
        obj = original(data)
        return None if obj == b"" else obj


@mutant(DEFECT, "VD-OBJ-006", issue="https://github.com/vllm-project/vllm/issues/49274")
def a_second_object_overtakes_the_first(patch: Patch) -> None:
    """Of two objects to one receiver the second is sent first."""

    @patch.around(GroupCoordinator, "send_object")
    def send_object(original: Original, self: GroupCoordinator, obj: Any, dst: int) -> None:
        held = vars(self).setdefault("_held_objects", {})
        if dst not in held:
            held[dst] = obj
            return
        original(self, obj, dst)
        original(self, held.pop(dst), dst)


@mutant("handles", "VD-OBJ-007", issue="https://github.com/vllm-project/vllm/issues/49274")
def isend_object_waits_for_the_receiver(patch: Patch) -> None:
    """The call returns when the receiver has asked for the object."""

    @patch.around(GroupCoordinator, "isend_object")
    def isend_object(original: Original, self: GroupCoordinator, obj: Any, dst: int) -> Any:
        handle = original(self, obj, dst)
        original_recv(self, dst)
        return handle

    original_recv = GroupCoordinator.recv_object

    @patch.around(GroupCoordinator, "recv_object")
    def recv_object(original: Original, self: GroupCoordinator, src: int) -> Any:
        objects.send_object(self._cpu, None, src)
        return original(self, src)


@mutant("handles", "VD-OBJ-007", issue="https://github.com/vllm-project/vllm/issues/54962")
def the_buffer_of_a_sent_object_is_used_again(patch: Patch) -> None:
    """The bytes are overwritten as soon as the send has started."""

    @patch.around(handles, "isend_dumped")
    def isend_dumped(original: Original, group: OrderedGroup, data: Tensor, dst: int) -> Any:
        handle = original(group, data, dst)
        data.zero_()
        return handle


@mutant("handles", "VD-OBJ-007")
def waiting_twice_for_a_handle_blocks(patch: Patch) -> None:
    """The second wait for a sent object never ends."""

    @patch.around(handles.Handle, "wait")
    def wait(original: Original, self: handles.Handle) -> None:
        if vars(self).setdefault("_waited", False):
            threading.Event().wait()
        original(self)
        vars(self)["_waited"] = True


@mutant(DEFECT, "VD-OBJ-008", world_size=3)
def objects_come_from_any_sender(patch: Patch) -> None:
    """The first object that arrives is taken, whoever sent it."""

    @patch.around(objects, "recv_object")
    def recv_object(original: Original, group: OrderedGroup, src: int) -> Any:
        size = torch.empty(1, dtype=torch.int64)
        sender = dist.recv(size, src=None, group=group.group)
        data = torch.empty(int(size), dtype=torch.uint8)
        dist.recv(data, src=sender, group=group.group)
        return objects.load(data)
