"""Signatures that have drifted: other names of arguments, another order, another default."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..communicators.base import DeviceCommunicatorBase  # noqa: TID252
from ..communicators.cpu import CpuCommunicator  # noqa: TID252
from ..coordinator import GroupCoordinator  # noqa: TID252
from .registry import Original, Patch, mutant

DEFECT = "signature drift"
Tensor = torch.Tensor


@mutant(DEFECT, "VD-AG-001", issue="https://github.com/vllm-project/vllm-omni/issues/6204")
def all_gather_calls_its_dimension_axis(patch: Patch) -> None:
    """The argument `dim` of all_gather has another name."""

    @patch.around(GroupCoordinator, "all_gather")
    def all_gather(original: Original, self: GroupCoordinator, input_: Tensor, axis: int = -1) -> Tensor:
        return original(self, input_, axis)


@mutant(DEFECT, "VD-GA-003")
def gather_takes_its_dimension_first(patch: Patch) -> None:
    """The arguments `dst` and `dim` have changed places, and `dst` has no name."""

    @patch.around(GroupCoordinator, "gather")
    def gather(
        original: Original, self: GroupCoordinator, input_: Tensor, dim: int = -1, dst_rank: int = 0
    ) -> Tensor | None:
        return original(self, input_, dst_rank, dim)


@mutant(DEFECT, "VD-P2P-001")
def recv_takes_the_dtype_first(patch: Patch) -> None:
    """The arguments `size` and `dtype` have changed places."""

    @patch.around(GroupCoordinator, "recv")
    def recv(
        original: Original, self: GroupCoordinator, dtype: Any, size: Any, src: int | None = None
    ) -> Tensor:
        return original(self, size, dtype, src)


@mutant(DEFECT, "VD-RSV-001")
def reduce_scatterv_calls_its_sizes_splits(patch: Patch) -> None:
    """The argument `sizes` has another name."""

    @patch.around(GroupCoordinator, "reduce_scatterv")
    def reduce_scatterv(
        original: Original,
        self: GroupCoordinator,
        input_: Tensor,
        dim: int = -1,
        splits: Sequence[int] | None = None,
    ) -> Tensor:
        return original(self, input_, dim, splits)


@mutant(DEFECT, "VD-AGV-004", issue="https://github.com/vllm-project/vllm/issues/57837")
def all_gatherv_takes_no_lists(patch: Patch) -> None:
    """A list of tensors is no argument."""

    @patch.around(GroupCoordinator, "all_gatherv")
    def all_gatherv(
        original: Original, self: GroupCoordinator, input_: Any, dim: int = 0, sizes: Any = None
    ) -> Any:
        if isinstance(input_, list):
            raise NotImplementedError("all_gatherv of lists")
        return original(self, input_, dim, sizes)


# ---- what the chapter `interface` finds before a rank starts ----


@mutant(DEFECT, "VD-IFC-001")
def coordinators_have_no_irecv_tensor_dict(patch: Patch) -> None:
    """There is no irecv_tensor_dict."""
    patch.value(GroupCoordinator, "irecv_tensor_dict", None)


@mutant(DEFECT, "VD-IFC-002")
def send_object_calls_its_peer_dest(patch: Patch) -> None:
    """The argument `dst` of send_object has another name."""

    @patch.around(GroupCoordinator, "send_object")
    def send_object(original: Original, self: GroupCoordinator, obj: Any, dest: int) -> None:
        original(self, obj, dest)


@mutant(DEFECT, "VD-IFC-002")
def barrier_wants_a_limit(patch: Patch) -> None:
    """A barrier is given its limit, without a default."""

    @patch.around(GroupCoordinator, "barrier")
    def barrier(original: Original, self: GroupCoordinator, timeout: float) -> None:
        original(self)


@mutant(DEFECT, "VD-IFC-003")
def gather_goes_to_the_last_rank_by_default(patch: Patch) -> None:
    """Without `dst` the last rank gets what is gathered."""

    @patch.around(GroupCoordinator, "gather")
    def gather(
        original: Original, self: GroupCoordinator, input_: Tensor, dst: int = -1, dim: int = -1
    ) -> Tensor | None:
        return original(self, input_, dst % self.world_size, dim)


@mutant(
    DEFECT, "VD-HOST-001", devices=("cpu",), issue="https://github.com/vllm-project/vllm-gaudi/issues/732"
)
def communicators_know_no_global_ranks(patch: Patch) -> None:
    """The constructor of the communicator does not take `global_ranks`."""

    @patch.around(CpuCommunicator, "__init__")
    def init(  # noqa: PLR0917 - the arguments of the original, but for the last one
        original: Original,
        self: CpuCommunicator,
        cpu_group: Any,
        device: Any = None,
        device_group: Any = None,
        unique_name: str = "",
    ) -> None:
        original(self, cpu_group, device, device_group, unique_name)


@mutant(DEFECT, "VD-HOST-002")
def communicators_gather_along_a_dimension_to_a_rank(patch: Patch) -> None:
    """The arguments `dst` and `dim` of the communicator's gather have changed places."""

    @patch.around(DeviceCommunicatorBase, "gather")
    def gather(
        original: Original, self: DeviceCommunicatorBase, input_: Tensor, dim: int = -1, dst: int = 0
    ) -> Tensor | None:
        return original(self, input_, dst, dim)


@mutant(DEFECT, "VD-HOST-002")
def communicators_do_not_scatter_into_outputs(patch: Patch) -> None:
    """The communicator has no reduce_scatterv_into_output."""
    patch.value(DeviceCommunicatorBase, "reduce_scatterv_into_output", None)


@mutant(DEFECT, "VD-HOST-003")
def communicators_broadcast_from_a_root(patch: Patch) -> None:
    """The argument `src` of the communicator's broadcast, which is passed by position, has another name."""

    @patch.around(DeviceCommunicatorBase, "broadcast")
    def broadcast(original: Original, self: DeviceCommunicatorBase, tensor: Tensor, root: int = 0) -> Tensor:
        return original(self, tensor, root)
