"""Dictionaries of tensors and other values: one message of metadata, then one for each non-empty tensor."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from .failures import naming
from .handles import Handle, PendingSends, irecv_tensor, isend_dumped, isend_tensor
from .objects import Refusal, broadcast_dumped, broadcast_object, dump, load, recv_object
from .ordered_group import Members, OrderedGroup
from .wire import as_wire, from_wire, obstacle_to_moving

TensorDict = dict[str, Any]
Postprocess = Callable[[], None]
_METADATA = "metadata"


class AllGatherGroup(Protocol):
    """A group whose ranks hold the same tensors: each sends a slice, the receivers put them together."""

    world_size: int
    rank_in_group: int

    def all_gather(self, input_: torch.Tensor, dim: int = -1) -> torch.Tensor: ...


class TensorDictTransport(Protocol):
    """A communicator's own way for tensor dicts, which it declares as `supports_tensor_dict`.

    The dictionaries hold tensors on the CPU and on the group's device. `send_tensor_dict` returns False
    where it has sent nothing but word that this message takes the general way; `recv_tensor_dict` returns
    None then.
    """

    def send_tensor_dict(self, tensor_dict: TensorDict, dst: int) -> bool | None: ...
    def recv_tensor_dict(self, src: int) -> TensorDict | None: ...


@dataclass(frozen=True)
class TensorMetadata:
    """What the receiver must know of a tensor. With `slices` above 1, only slice `slice_index` is sent."""

    on_cpu: bool
    dtype: torch.dtype
    shape: tuple[int, ...]
    slices: int = 1
    slice_index: int = 0

    @property
    def numel(self) -> int:
        """Count the elements that are sent."""
        return math.prod(self.shape) // self.slices


@dataclass(frozen=True)
class Slicing:
    """Which tensors on the group's device are sent as slices: those that divide by the size of `group`.

    `overrides` says otherwise by top-level key.
    """

    group: AllGatherGroup | None = None
    overrides: Mapping[str, bool] | None = None

    def metadata(self, key: str, tensor: torch.Tensor, *, on_cpu: bool) -> TensorMetadata:
        """Describe a tensor. Raises ValueError where an override slices one that does not divide."""
        whole = TensorMetadata(on_cpu, tensor.dtype, tuple(tensor.shape))
        if self.group is None or self.group.world_size == 1 or tensor.numel() == 0:
            return whole
        divides = tensor.numel() % self.group.world_size == 0
        wanted = (self.overrides or {}).get(key, divides)
        if wanted and not divides:
            raise ValueError(
                f"all_gather_tensors[{key!r}] is True, but a tensor of shape {tuple(tensor.shape)} does not "
                f"divide by the all_gather_group's world size {self.group.world_size}; leave the key out"
            )
        if not wanted:
            return whole
        return TensorMetadata(
            on_cpu, tensor.dtype, tuple(tensor.shape), self.group.world_size, self.group.rank_in_group
        )


def split(
    tensor_dict: TensorDict, device_type: str, slicing: Slicing
) -> tuple[TensorDict, list[tuple[TensorMetadata, torch.Tensor]]]:
    """Return a copy with metadata in place of tensors, and the tensors in order.

    Nested dictionaries are searched too. Raises TypeError for what is no dictionary or no dense tensor,
    ValueError for a tensor on a foreign device.
    """
    if not isinstance(tensor_dict, dict):
        raise TypeError(f"a tensor dict is a dict, not {type(tensor_dict).__name__}")
    tensors: list[tuple[TensorMetadata, torch.Tensor]] = []
    skeleton = {
        key: _described(value, key, device_type, slicing, tensors) for key, value in tensor_dict.items()
    }
    return skeleton, tensors


def _described(
    value: Any,
    top_key: str,
    device_type: str,
    slicing: Slicing,
    tensors: list[tuple[TensorMetadata, torch.Tensor]],
) -> Any:
    """Put tensors into the list, and metadata in their place.

    Not a function inside `split`: one that calls itself refers to itself, and would keep the tensors until
    Python looks for cycles.
    """
    if isinstance(value, dict):
        return {
            key: _described(inner, top_key, device_type, slicing, tensors) for key, inner in value.items()
        }
    if not isinstance(value, torch.Tensor):
        return value
    _require_on_group_device(value, top_key, device_type)
    own = slicing if value.device.type == device_type else Slicing()
    metadata = own.metadata(top_key, value, on_cpu=value.device.type == "cpu")
    tensors.append((metadata, value))
    return metadata


def places(skeleton: TensorDict) -> Iterator[tuple[TensorDict, Any, TensorMetadata]]:
    """Yield (dictionary, key, metadata) for every tensor of what `split` made, in its order."""
    for key, value in skeleton.items():
        if isinstance(value, dict):
            yield from places(value)
        elif isinstance(value, TensorMetadata):
            yield skeleton, key, value


class TensorDictChannel:
    """Tensor dicts in one group: metadata and CPU tensors over the CPU group, others over the device's.

    Dictionaries from one rank to another take the communicator's own way where it has one.
    """

    def __init__(self, cpu: OrderedGroup, device_group: OrderedGroup, device: torch.device) -> None:
        self._cpu = cpu
        self._device_group = device_group
        self._device = device
        self._transport: TensorDictTransport | None = None
        self.cpu_members: Members = cpu
        self.pending = PendingSends()

    def attach(self, communicator: Any) -> None:
        """Take the ways that a communicator declares; one that has never heard of them has none."""
        if getattr(communicator, "supports_tensor_dict", False):
            self._transport = communicator
        self.cpu_members = getattr(communicator, "cpu_members", None) or self._cpu

    def broadcast(self, tensor_dict: TensorDict | None, src: int) -> TensorDict:
        """Return the dictionary of `src`; elsewhere than there, all in it is new."""
        if self._cpu.rank_in_group != src:
            received: TensorDict = broadcast_object(self.cpu_members, None, src)
            for container, key, metadata in list(places(received)):
                container[key] = self._allocate(metadata)
                self._broadcast_tensor(metadata, container[key], src)
            return received
        metadata_message, tensors = self._split_or_refuse(
            tensor_dict, Slicing(), lambda refusal: broadcast_dumped(self.cpu_members, refusal, src)
        )
        broadcast_dumped(self.cpu_members, metadata_message, src)
        for metadata, tensor in tensors:
            self._broadcast_tensor(metadata, tensor, src)
        return tensor_dict or {}

    def isend(self, tensor_dict: TensorDict, dst: int, slicing: Slicing) -> list[Handle]:
        """Start to send a dictionary: a handle for the metadata, then one for each non-empty tensor."""
        self.pending.make_room()
        metadata_message, tensors = self._split_or_refuse(
            tensor_dict, slicing, lambda refusal: self._send_refusal(refusal, dst)
        )
        parts = [as_wire(tensor).view(each.slices, -1)[each.slice_index] for each, tensor in tensors]
        if self._sent_by_transport(metadata_message, parts, dst):
            return [Handle([], []), *(Handle([], []) for part in parts if part.numel())]
        handles = [isend_dumped(self._cpu, metadata_message, dst)]
        for (metadata, _), part in zip(tensors, parts, strict=True):
            if part.numel():
                handles.append(isend_tensor(self._group(metadata), part, dst))
        self.pending.add(handles)
        return handles

    def irecv(
        self, src: int, all_gather_group: AllGatherGroup | None
    ) -> tuple[TensorDict, list[Handle], list[Postprocess]]:
        """Wait for the metadata and start to receive the tensors.

        The caller waits for the handles, then runs the postprocess functions; until then a tensor sent in
        slices is only this rank's slice. Raises ValueError, after the slices have arrived, where they do not
        fit the group.
        """
        message = None if self._transport is None else self._transport.recv_tensor_dict(src)
        skeleton: TensorDict = recv_object(self._cpu, src) if message is None else load(message[_METADATA])
        handles: list[Handle] = []
        postprocess: list[Postprocess] = []
        misfit: ValueError | None = None
        for position, (container, key, metadata) in enumerate(list(places(skeleton))):
            if message is None:
                buffer = container[key] = self._allocate(metadata)
                handles += self._start_to_fill(buffer, metadata, src)
            else:
                container[key] = from_wire(message[str(position)], metadata.dtype, self._shape(metadata))
                handles += [Handle([], [])] if metadata.numel else []
            if metadata.slices > 1:
                misfit = misfit or _misfit(key, metadata, all_gather_group)
                postprocess.append(_put_together(container, key, metadata, all_gather_group))
        if misfit is not None:
            for handle in handles:
                handle.wait()
            raise misfit
        return skeleton, handles, postprocess

    def _split_or_refuse(
        self, tensor_dict: Any, slicing: Slicing, refuse: Callable[[torch.Tensor], None]
    ) -> tuple[torch.Tensor, list[tuple[TensorMetadata, torch.Tensor]]]:
        """Return the metadata as bytes, and the tensors. What cannot be sent is refused on both sides."""
        try:
            skeleton, tensors = split(tensor_dict, self._device.type, slicing)
            return dump(skeleton), tensors
        except (TypeError, ValueError) as error:
            refuse(dump(Refusal(self._cpu.rank_in_group, type(error), str(error))))
            raise

    def _sent_by_transport(self, metadata: torch.Tensor, parts: Sequence[torch.Tensor], dst: int) -> bool:
        if self._transport is None:
            return False
        message = {_METADATA: metadata, **{str(position): part for position, part in enumerate(parts)}}
        return self._transport.send_tensor_dict(message, dst) is not False

    def _start_to_fill(self, buffer: torch.Tensor, metadata: TensorMetadata, src: int) -> list[Handle]:
        return [irecv_tensor(self._group(metadata), as_wire(buffer), src)] if buffer.numel() else []

    def _send_refusal(self, refusal: torch.Tensor, dst: int) -> None:
        if not self._sent_by_transport(refusal, (), dst):
            self.pending.add([isend_dumped(self._cpu, refusal, dst)])

    def _group(self, metadata: TensorMetadata) -> OrderedGroup:
        return self._cpu if metadata.on_cpu else self._device_group

    def _broadcast_tensor(self, metadata: TensorMetadata, tensor: torch.Tensor, src: int) -> None:
        with naming("broadcast_tensor_dict", self._group(metadata).scope):
            self._broadcasters(metadata).broadcast_(tensor, src)

    def _broadcasters(self, metadata: TensorMetadata) -> Members:
        return self.cpu_members if metadata.on_cpu else self._device_group

    def _allocate(self, metadata: TensorMetadata) -> torch.Tensor:
        device = "cpu" if metadata.on_cpu else self._device
        return torch.empty(self._shape(metadata), dtype=metadata.dtype, device=device)

    def _shape(self, metadata: TensorMetadata) -> tuple[int, ...]:
        return metadata.shape if metadata.slices == 1 else (metadata.numel,)


def _require_on_group_device(tensor: torch.Tensor, key: str, device_type: str) -> None:
    obstacle = obstacle_to_moving(tensor)
    if obstacle is not None:
        raise TypeError(f"tensor {key!r} of the tensor dict is {obstacle}")
    if tensor.device.type not in ("cpu", device_type):
        raise ValueError(
            f"tensor {key!r} is on {tensor.device}, and the group works on {device_type!r} and the CPU"
        )


def _misfit(key: str, metadata: TensorMetadata, group: AllGatherGroup | None) -> ValueError | None:
    if group is not None and (group.world_size, group.rank_in_group) == (
        metadata.slices,
        metadata.slice_index,
    ):
        return None
    here = "no all_gather_group" if group is None else f"rank {group.rank_in_group} of {group.world_size}"
    return ValueError(
        f"tensor {key!r} was sent as slice {metadata.slice_index} of {metadata.slices} of an "
        f"all_gather_group, and the receiver has {here}: pass the matching all_gather_group on both sides, "
        "or on neither"
    )


def _put_together(
    container: TensorDict, key: Any, metadata: TensorMetadata, group: AllGatherGroup | None
) -> Postprocess:
    def postprocess() -> None:
        if group is not None:
            container[key] = group.all_gather(container[key], dim=0).view(metadata.shape)

    return postprocess
