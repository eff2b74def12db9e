"""Operations that do something else by what the program has set around them, or by the thread they run in."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from typing import Any

import torch

from .. import objects  # noqa: TID252
from ..communicators.base import DeviceCommunicatorBase  # noqa: TID252
from ..communicators.shm.segment import Segment  # noqa: TID252
from ..coordinator import GroupCoordinator  # noqa: TID252
from ..envs import SHARED_MEMORY  # noqa: TID252
from .registry import Original, Patch, mutant

DEFECT = "contexts"
Tensor = torch.Tensor


@mutant(DEFECT, "VD-CTX-001")
def sums_without_gradients_are_the_inputs(patch: Patch) -> None:
    """The sum is made by a function of autograd, which nobody calls where gradients are off."""

    @patch.around(GroupCoordinator, "all_reduce")
    def all_reduce(original: Original, self: GroupCoordinator, input_: Tensor) -> Tensor:
        return original(self, input_) if torch.is_grad_enabled() else input_.clone()


@mutant(DEFECT, "VD-CTX-001", devices=("cpu",), environment=((SHARED_MEMORY, "1"),))
def kept_memory_belongs_to_inference_mode(patch: Patch) -> None:
    """Memory that is kept is made in the mode of the first call, and cannot be written to in another."""

    @patch.around(Segment, "_view")
    def view(original: Original, self: Segment, dtype: torch.dtype) -> Tensor:
        return self._rows.view(dtype).view(2, self.world_size, -1)


@mutant(DEFECT, "VD-CTX-002")
def received_tensors_have_the_default_dtype(patch: Patch) -> None:
    """Tensors of float32 are received into memory for floats of the default dtype."""

    @patch.around(GroupCoordinator, "recv")
    def recv(
        original: Original,
        self: GroupCoordinator,
        size: Sequence[int],
        dtype: torch.dtype,
        src: int | None = None,
    ) -> Tensor:
        result: Tensor = original(self, size, dtype, src)
        return result.to(torch.get_default_dtype()) if dtype == torch.float32 else result


@mutant(DEFECT, "VD-CTX-002")
def gathered_floats_have_the_default_dtype(patch: Patch) -> None:
    """The buffer that takes gathered tensors of float32 is made by torch.empty, without a dtype."""

    @patch.around(DeviceCommunicatorBase, "all_gather")
    def all_gather(
        original: Original, self: DeviceCommunicatorBase, input_: Tensor, *args: Any, **kwargs: Any
    ) -> Tensor:
        result: Tensor = original(self, input_, *args, **kwargs)
        buffer = result.new_empty(result.shape, dtype=torch.get_default_dtype())
        return buffer.copy_(result) if result.dtype == torch.float32 else result


@mutant(DEFECT, "VD-CTX-003")
def sizes_of_objects_are_made_on_the_default_device(patch: Patch) -> None:
    """The number of bytes that goes before an object is a tensor of torch's default device."""

    @patch.around(objects, "header")
    def header(original: Original, data: Tensor) -> Tensor:
        return torch.tensor([data.numel()], dtype=torch.int64)


@mutant(DEFECT, "VD-CTX-004")
def each_thread_has_a_state_of_its_own(patch: Patch) -> None:
    """The group is found by a variable of the thread; a thread that has none sums over itself."""
    here = threading.local()

    @patch.around(GroupCoordinator, "__init__")
    def init(original: Original, self: GroupCoordinator, *args: Any, **kwargs: Any) -> None:
        here.knows = True
        original(self, *args, **kwargs)

    @patch.around(GroupCoordinator, "all_reduce")
    def all_reduce(original: Original, self: GroupCoordinator, input_: Tensor) -> Tensor:
        return original(self, input_) if hasattr(here, "knows") else input_.clone()


@mutant(DEFECT, "VD-CTX-005")
def sent_parameters_arrive_as_zeros(patch: Patch) -> None:
    """What requires gradients is sent from a buffer into which nothing was written."""

    @patch.around(GroupCoordinator, "send")
    def send(original: Original, self: GroupCoordinator, tensor: Tensor, dst: int | None = None) -> None:
        original(self, torch.zeros_like(tensor.detach()) if tensor.requires_grad else tensor, dst)


@mutant(DEFECT, "VD-CTX-005")
def gathered_parameters_no_longer_require_gradients(patch: Patch) -> None:
    """The owner's tensor is detached in place before it is gathered."""

    @patch.around(GroupCoordinator, "all_gather")
    def all_gather(
        original: Original, self: GroupCoordinator, input_: Tensor, *args: Any, **kwargs: Any
    ) -> Tensor:
        if input_.requires_grad:
            input_.requires_grad = False
        return original(self, input_, *args, **kwargs)


@mutant(DEFECT, "VD-CTX-006")
def tags_of_sums_are_drawn_from_torch(patch: Patch) -> None:
    """Each sum draws a tag from the generator that programs draw their dropout masks from."""

    @patch.around(GroupCoordinator, "all_reduce")
    def all_reduce(original: Original, self: GroupCoordinator, input_: Tensor) -> Tensor:
        torch.randint(1 << 30, (1,), device="cpu")
        return original(self, input_)


@mutant(DEFECT, "VD-CTX-006")
def tags_of_messages_are_drawn_from_python(patch: Patch) -> None:
    """Each object that is sent gets a random tag."""

    @patch.around(GroupCoordinator, "send_object")
    def send_object(original: Original, self: GroupCoordinator, obj: Any, dst: int) -> None:
        random.getrandbits(30)
        original(self, obj, dst)
