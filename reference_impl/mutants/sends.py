"""Sends and receives in flight: what they wait for, keep alive, and leave behind."""

from __future__ import annotations

import os
import threading
from typing import Any

import torch

from .. import objects, subgroups, tensor_dict  # noqa: TID252
from ..handles import Handle, PendingSends  # noqa: TID252
from ..ordered_group import OrderedGroup  # noqa: TID252
from ..tensor_dict import TensorDictChannel  # noqa: TID252
from .registry import Original, Patch, mutant

HANDLES = "handles"
LEAKS = "leaks"
DEADLOCK = "https://github.com/vllm-project/vllm/issues/49274"
RELEASED_EARLY = "https://github.com/vllm-project/vllm/issues/54962"


@mutant(HANDLES, "VD-TD-007", devices=("simdev", "cuda"))
def the_first_message_connects_two_ranks(patch: Patch) -> None:
    """New groups have no connections yet: the first message between two ranks waits until both are there."""
    patch.value(subgroups, "connect", lambda group, device: None)  # noqa: ARG005


@mutant(HANDLES, "VD-TD-007", issue=DEADLOCK)
def isend_of_a_dictionary_waits_for_the_receiver(patch: Patch) -> None:
    """The call returns when the receiver has asked for the metadata."""

    @patch.around(TensorDictChannel, "isend")
    def isend(
        original: Original, self: TensorDictChannel, values: Any, dst: int, *args: Any, **kwargs: Any
    ) -> Any:
        handles = original(self, values, dst, *args, **kwargs)
        objects.recv_object(self._cpu, dst)
        return handles

    @patch.around(TensorDictChannel, "irecv")
    def irecv(original: Original, self: TensorDictChannel, src: int, *args: Any, **kwargs: Any) -> Any:
        objects.send_object(self._cpu, None, src)
        return original(self, src, *args, **kwargs)


@mutant(HANDLES, "VD-TD-007", "VD-TD-002", issue=RELEASED_EARLY)
def copies_of_views_are_used_again_too_early(patch: Patch) -> None:
    """The contiguous copy of a large view is overwritten when its send has started."""

    @patch.around(tensor_dict, "isend_tensor")
    def isend_tensor(original: Original, group: OrderedGroup, flat: torch.Tensor, dst: int) -> Handle:
        copy = flat.clone()
        handle: Handle = original(group, copy, dst)
        if flat.numel() > 1000:
            copy.zero_()
        return handle


@mutant(HANDLES, "VD-TD-008", "VD-TD-002")
def receives_are_not_waited_for(patch: Patch) -> None:
    """The wait of a handle that receives returns at once, and another thread fills the tensor later."""

    @patch.around(tensor_dict, "irecv_tensor")
    def irecv_tensor(original: Original, group: OrderedGroup, flat: torch.Tensor, src: int) -> Handle:
        buffer = torch.empty_like(flat)
        original(group, buffer, src).wait()
        threading.Timer(0.2, flat.copy_, (buffer,)).start()
        return Handle([], [])


@mutant(HANDLES, "VD-TD-009")
def waiting_again_for_a_message_blocks(patch: Patch) -> None:
    """The second wait for a handle never ends."""

    @patch.around(Handle, "wait")
    def wait(original: Original, self: Handle) -> None:
        if vars(self).get("_waited"):
            threading.Event().wait()
        original(self)
        vars(self)["_waited"] = True


@mutant(HANDLES, "VD-TD-009")
def waiting_again_for_a_message_is_an_error(patch: Patch) -> None:
    """The second wait for a handle raises."""

    @patch.around(Handle, "wait")
    def wait(original: Original, self: Handle) -> None:
        if vars(self).get("_waited"):
            raise RuntimeError("this handle was waited for already")
        original(self)
        vars(self)["_waited"] = True


@mutant(HANDLES, "VD-TD-015", issue=DEADLOCK)
def dropped_sends_are_given_up(patch: Patch) -> None:
    """A message whose handles are dropped leaves when they are waited for, so it never does."""

    @patch.around(TensorDictChannel, "isend")
    def isend(original: Original, self: TensorDictChannel, *args: Any, **kwargs: Any) -> Any:
        return [_Late(lambda: original(self, *args, **kwargs))]


class _Late(Handle):
    """A message that starts when somebody waits for it."""

    def __init__(self, start: Any) -> None:
        super().__init__([], [])
        self._start = start

    def wait(self) -> None:
        start, self._start = self._start, list
        for handle in start():
            handle.wait()


@mutant(LEAKS, "VD-TD-016", issue="https://github.com/intel/llm-scaler/issues/590")
def dropped_sends_pile_up(patch: Patch) -> None:
    """Sends that nobody waits for are kept for ever."""

    @patch.around(PendingSends, "make_room")
    def make_room(original: Original, self: PendingSends) -> None:
        return None


@mutant(LEAKS, "VD-TD-016")
def each_send_leaves_a_thread_running(patch: Patch) -> None:
    """Each dictionary that is sent starts a thread that never ends."""

    @patch.around(TensorDictChannel, "isend")
    def isend(original: Original, self: TensorDictChannel, *args: Any, **kwargs: Any) -> Any:
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        return original(self, *args, **kwargs)


@mutant(LEAKS, "VD-TD-016")
def each_send_leaves_a_file_open(patch: Patch) -> None:
    """Each dictionary that is sent opens a file that stays."""

    @patch.around(TensorDictChannel, "isend")
    def isend(original: Original, self: TensorDictChannel, *args: Any, **kwargs: Any) -> Any:
        os.open(os.devnull, os.O_RDONLY)
        return original(self, *args, **kwargs)
