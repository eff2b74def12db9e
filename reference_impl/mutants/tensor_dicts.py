"""Tensor dictionaries that arrive with other keys, values, tensors or devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from .. import tensor_dict as channel  # noqa: TID252
from ..coordinator import GroupCoordinator  # noqa: TID252
from ..tensor_dict import Slicing, TensorDict, TensorDictChannel, TensorMetadata  # noqa: TID252
from ..wire import fresh  # noqa: TID252
from .registry import Original, Patch, mutant
from .tools import flip_bit, in_memory_order, is_expanded

DEFECT = "tensor dicts"
GATHERED = "all-gather group"
NOT_REPLICATED = "https://github.com/vllm-project/vllm/issues/18243"
Tensor = torch.Tensor


def sent_as(patch: Patch, change: Callable[[str, Any], Any], *, keep: Callable[[Any], bool] = bool) -> None:
    """Send `change(key, value)` in place of each value, and leave out those of which `keep` is False."""

    @patch.around(channel, "split")
    def split(original: Original, tensor_dict: Any, *args: Any) -> Any:
        if isinstance(tensor_dict, dict):
            tensor_dict = {k: change(k, v) for k, v in tensor_dict.items() if keep(v)}
        return original(tensor_dict, *args)


def all_of_them(value: Any) -> bool:
    return True


@mutant(DEFECT, "VD-TD-001", "VD-TD-002")
def keys_arrive_sorted(patch: Patch) -> None:
    """The order of the keys is lost."""

    @patch.around(channel, "split")
    def split(original: Original, tensor_dict: Any, *args: Any) -> Any:
        ordered = dict(sorted(tensor_dict.items())) if isinstance(tensor_dict, dict) else tensor_dict
        return original(ordered, *args)


@mutant(DEFECT, "VD-TD-001", "VD-TD-002")
def integers_arrive_narrower(patch: Patch) -> None:
    """Tensors of int64 travel as int32."""
    sent_as(
        patch,
        lambda _, v: v.int() if isinstance(v, Tensor) and v.dtype == torch.int64 else v,
        keep=all_of_them,
    )


@mutant(DEFECT, "VD-TD-003")
def none_is_dropped(patch: Patch) -> None:
    """Keys whose value is None do not arrive."""
    sent_as(patch, lambda _, v: v, keep=lambda v: v is not None)


@mutant(DEFECT, "VD-TD-003")
def empty_tensors_are_dropped(patch: Patch) -> None:
    """Keys whose tensor has no elements do not arrive."""
    sent_as(patch, lambda _, v: v, keep=lambda v: not (isinstance(v, Tensor) and not v.numel()))


@mutant(DEFECT, "VD-TD-003")
def nested_values_arrive_as_text(patch: Patch) -> None:
    """A dictionary that holds no tensors arrives as its text."""

    def change(_: str, value: Any) -> Any:
        plain = isinstance(value, dict) and not any(isinstance(each, Tensor) for each in value.values())
        return str(value) if plain else value

    sent_as(patch, change, keep=all_of_them)


@mutant(DEFECT, "VD-TD-003")
def empty_dictionaries_arrive_as_none(patch: Patch) -> None:
    """A dictionary without keys is taken for nothing."""

    @patch.around(TensorDictChannel, "broadcast")
    def broadcast(original: Original, self: TensorDictChannel, *args: Any) -> Any:
        return original(self, *args) or None

    @patch.around(TensorDictChannel, "irecv")
    def irecv(original: Original, self: TensorDictChannel, *args: Any) -> Any:
        tensor_dict, *rest = original(self, *args)
        return tensor_dict or None, *rest


@mutant(DEFECT, "VD-TD-004", devices=("simdev", "cuda", "xpu"))
def tensors_on_the_cpu_arrive_on_the_device(patch: Patch) -> None:
    """Whatever was on the CPU comes out on the device."""

    @patch.around(GroupCoordinator, "irecv_tensor_dict")
    def irecv_tensor_dict(original: Original, self: GroupCoordinator, *args: Any, **kwargs: Any) -> Any:
        tensor_dict, handles, postprocess = original(self, *args, **kwargs)

        def move() -> None:
            for key, value in (tensor_dict or {}).items():
                if isinstance(value, Tensor):
                    tensor_dict[key] = value.to(self.device)

        return tensor_dict, handles, [*postprocess, move]


@mutant("contiguity", "VD-TD-005", issue="https://github.com/pytorch/pytorch/issues/192920")
def views_are_sent_in_memory_order(patch: Patch) -> None:
    """Views are read from memory as if they were contiguous."""
    sent_as(
        patch, lambda _, v: in_memory_order(v).contiguous() if isinstance(v, Tensor) else v, keep=all_of_them
    )


@mutant("contiguity", "VD-TD-005")
def every_second_element_is_sent_as_its_neighbours(patch: Patch) -> None:
    """Only views that step over every second element are read wrongly; transposed ones are right."""

    def change(_: str, value: Any) -> Any:
        strided = isinstance(value, Tensor) and value.dim() > 0 and value.stride(-1) == 2
        return in_memory_order(value).contiguous() if strided else value

    sent_as(patch, change, keep=all_of_them)


@mutant("rank mapping", "VD-TD-006")
def default_peers_of_dictionaries_are_exchanged(patch: Patch) -> None:
    """Without a peer, sends go to the previous rank and receives come from the next one."""

    @patch.around(GroupCoordinator, "isend_tensor_dict")
    def isend(
        original: Original,
        self: GroupCoordinator,
        tensor_dict: Any,
        dst: int | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        peer = (self.rank_in_group - 1) % self.world_size if dst is None else dst
        return original(self, tensor_dict, peer, *args, **kwargs)

    @patch.around(GroupCoordinator, "irecv_tensor_dict")
    def irecv(
        original: Original, self: GroupCoordinator, src: int | None = None, *args: Any, **kwargs: Any
    ) -> Any:
        peer = (self.rank_in_group + 1) % self.world_size if src is None else src
        return original(self, peer, *args, **kwargs)


@mutant("rank mapping", "VD-TD-006")
def dictionaries_always_come_from_the_first_rank(patch: Patch) -> None:
    """`src` of a broadcast is not looked at."""

    @patch.around(GroupCoordinator, "broadcast_tensor_dict")
    def broadcast(original: Original, self: GroupCoordinator, tensor_dict: Any = None, src: int = 0) -> Any:
        return original(self, tensor_dict if tensor_dict is not None else {}, src * 0)


@mutant("aliasing", "VD-TD-012")
def sent_views_are_replaced_in_the_dictionary(patch: Patch) -> None:
    """The sender's dictionary holds contiguous copies after the call."""

    @patch.around(channel, "split")
    def split(original: Original, tensor_dict: Any, *args: Any) -> Any:
        for key, value in list(tensor_dict.items()) if isinstance(tensor_dict, dict) else []:
            if isinstance(value, Tensor):
                tensor_dict[key] = fresh(value)
        return original(tensor_dict, *args)


@mutant("aliasing", "VD-TD-012")
def sent_tensors_are_changed(patch: Patch) -> None:
    """One bit of every tensor of the sender is flipped after a send and a broadcast."""

    def spoil(tensor_dict: TensorDict | None) -> None:
        for value in (tensor_dict or {}).values():
            if isinstance(value, Tensor) and value.numel() and not is_expanded(value):
                flip_bit(value.as_strided((1,), (1,)))

    @patch.around(GroupCoordinator, "send_tensor_dict")
    def send(original: Original, self: GroupCoordinator, tensor_dict: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, tensor_dict, *args, **kwargs)
        if self.world_size > 1:
            spoil(tensor_dict)
        return result


@mutant(DEFECT, "VD-TD-014")
def tensors_of_inner_dictionaries_arrive_as_zeros(patch: Patch) -> None:
    """Nobody fills the tensors of dictionaries inside the dictionary."""

    def change(_: str, value: Any) -> Any:
        if isinstance(value, Tensor):
            return torch.zeros_like(value)
        return {k: change(k, v) for k, v in value.items()} if isinstance(value, dict) else value

    sent_as(patch, lambda k, v: change(k, v) if isinstance(v, dict) else v, keep=all_of_them)


@mutant(GATHERED, "VD-TD-010", world_size=4)
def slices_are_put_together_backwards(patch: Patch) -> None:
    """The slices of a tensor come in descending order of the ranks that sent them."""

    @patch.around(channel, "_put_together")
    def put_together(
        original: Original,
        container: Any,
        key: Any,
        metadata: TensorMetadata,
        group: Any,
    ) -> Callable[[], None]:
        def postprocess() -> None:
            gathered = group.all_gather(container[key], dim=0).view(metadata.slices, -1)
            container[key] = gathered.flip(0).reshape(metadata.shape)

        return postprocess


@mutant(GATHERED, "VD-TD-010", world_size=4)
def slices_are_not_put_together(patch: Patch) -> None:
    """Each receiver keeps its own slice."""

    @patch.around(GroupCoordinator, "irecv_tensor_dict")
    def irecv(original: Original, self: GroupCoordinator, *args: Any, **kwargs: Any) -> Any:
        tensor_dict, handles, _ = original(self, *args, **kwargs)
        return tensor_dict, handles, []


@mutant(GATHERED, "VD-TD-011", world_size=4, issue=NOT_REPLICATED)
def tensors_that_differ_are_sliced_all_the_same(patch: Patch) -> None:
    """What says which tensors differ within the group is not looked at."""

    @patch.around(Slicing, "metadata")
    def metadata(
        original: Original, self: Slicing, key: str, tensor: Tensor, *, on_cpu: bool
    ) -> TensorMetadata:
        return original(Slicing(self.group), key, tensor, on_cpu=on_cpu)
