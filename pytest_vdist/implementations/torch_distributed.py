"""The adapter of torch.distributed itself: a method of a coordinator is one call, and nothing is mended."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, cast

import torch
import torch.distributed as dist

from pytest_vdist.implementations.protocol import Capabilities, Coordinator, InitSettings
from pytest_vdist.implementations.torch_defects import unchecked_calls
from pytest_vdist.process_groups.names import reduce_scatter_tensor
from pytest_vdist.reference_impl.split_groups import torch_obstacle

_CPU_BACKEND = "gloo"
_NOT_IN_TORCH = {
    "all_gatherv": "torch.distributed gathers parts of different sizes on some backends only",
    "reduce_scatterv": "torch.distributed has no reduce-scatter into a tensor of each rank's own size",
    "isend_object": "torch.distributed sends objects with the caller waiting",
    **dict.fromkeys(
        ("broadcast_tensor_dict", "send_tensor_dict", "isend_tensor_dict"),
        "torch.distributed has no dictionaries of tensors",
    ),
}


class TorchDistributed:
    """torch.distributed, with the process-group backend that torch has for the device.

    What torch has no call for is declared as unsupported; what it gets wrong is not.
    """

    name = "torch"

    def __init__(self) -> None:
        self._settings: InitSettings | None = None
        self._made_default_group = False
        self._names = itertools.count()

    def capabilities(self, device_type: str) -> Capabilities:
        """Declare what torch has no call for, and whether it splits groups on devices of that type."""
        obstacle = torch_obstacle(device_type)
        return Capabilities(
            unsupported=_NOT_IN_TORCH | ({} if obstacle is None else {"split_group": obstacle}),
            device_failures="abort" if device_type == "cuda" else "error",
            unchecked_calls=unchecked_calls(device_type),
        )

    def coordinator_class(self, device_type: str) -> type:  # noqa: ARG002 - one for all devices
        """Name the class that the chapter `interface` looks at."""
        return TorchGroup

    def init(self, settings: InitSettings) -> None:
        """Make the default process group, unless there is one. Raises what `init_process_group` raises."""
        if settings.split_group:
            obstacle = torch_obstacle(settings.device_type)
            if obstacle is not None:
                raise RuntimeError(obstacle)
        self._settings = settings
        device = _device(settings)
        if device.type != "cpu":
            torch.get_device_module(device).set_device(device)
        if dist.is_initialized():
            return
        dist.init_process_group(
            _default_backend(settings),
            init_method=settings.init_method,
            rank=settings.rank,
            world_size=settings.world_size,
            timeout=_limit(settings.timeout),
            device_id=device if settings.split_group and device.type != "cpu" else None,
        )
        self._made_default_group = True

    def coordinator(self, group_ranks: list[list[int]], *, name: str, **options: Any) -> Coordinator:
        """Make the groups of all lists, by `new_group` or `split_group`; `options` are torch's."""
        if self._settings is None:
            raise RuntimeError("torch.distributed is not initialised: call init() first")
        unique_name = f"{name}:{next(self._names)}"
        return cast("Coordinator", TorchGroup(group_ranks, unique_name, self._settings, **options))

    def destroy(self) -> None:
        """Destroy all groups, and the default one unless it was there before."""
        if self._made_default_group and dist.is_initialized():
            dist.destroy_process_group()
        self._settings, self._made_default_group = None, False


def _lacking(operation: str) -> Callable[..., Any]:
    def refuse(*_: Any, **__: Any) -> Any:
        raise NotImplementedError(f"{operation}: {_NOT_IN_TORCH[operation]}")

    return refuse


class TorchGroup:
    """One rank's view of one group: a process group for the device, and one of gloo for objects and barriers.

    Tensors are copied where torch works in place and a coordinator does not, and joined where torch gives a
    list; `dim` is made the first dimension for torch, which knows no other.
    """

    def __init__(
        self, group_ranks: list[list[int]], unique_name: str, settings: InitSettings, **options: Any
    ) -> None:
        """Make the groups of all lists. Raises ValueError on a rank that is in none of them."""
        self.unique_name = unique_name
        self.device = _device(settings)
        made = _split_groups if settings.split_group else _new_groups
        device_group, cpu_group = made(group_ranks, settings, unique_name, options)
        if device_group is None or cpu_group is None:
            raise ValueError(f"rank {dist.get_rank()} is in no group of {group_ranks}")
        self.device_group, self.cpu_group = device_group, cpu_group
        self._destroyed = False
        self.rank = dist.get_rank()
        self.ranks = dist.get_process_group_ranks(device_group)
        self.world_size = dist.get_world_size(device_group)
        self.rank_in_group = dist.get_rank(device_group)

    @property
    def first_rank(self) -> int:
        return self.ranks[0]

    @property
    def last_rank(self) -> int:
        return self.ranks[-1]

    @property
    def next_rank(self) -> int:
        return self.ranks[self._next]

    @property
    def prev_rank(self) -> int:
        return self.ranks[self._previous]

    def all_reduce(self, input_: torch.Tensor) -> torch.Tensor:
        """Return the sum, made in a contiguous copy."""
        output = _copy(input_)
        dist.all_reduce(output, group=self.device_group)
        return output

    def all_gather(self, input_: torch.Tensor, dim: int = -1) -> torch.Tensor:
        """Return the tensors of a list, joined along `dim`."""
        parts = self._like_each(input_)
        dist.all_gather(parts, input_.contiguous(), group=self.device_group)
        return torch.cat(parts, dim)

    def reduce_scatter(self, input_: torch.Tensor, dim: int = -1) -> torch.Tensor:
        """Return this rank's part of the sum, cut along `dim`."""
        rows = input_.movedim(dim, 0).contiguous()
        output = rows.new_empty(rows.shape[0] // self.world_size, *rows.shape[1:])
        reduce_scatter_tensor(output, rows, group=self.device_group)
        return output.movedim(0, dim).contiguous()

    def gather(self, input_: torch.Tensor, dst: int = 0, dim: int = -1) -> torch.Tensor | None:
        """Return the tensors of a list, joined along `dim`, at `dst`; None elsewhere."""
        parts = self._like_each(input_) if self.rank_in_group == dst else None
        dist.gather(input_.contiguous(), parts, group_dst=dst, group=self.device_group)
        return None if parts is None else torch.cat(parts, dim)

    def broadcast(self, input_: torch.Tensor, src: int = 0) -> torch.Tensor:
        dist.broadcast(input_, group_src=src, group=self.device_group)
        return input_

    def broadcast_object(self, obj: Any = None, src: int = 0) -> Any:
        return self.broadcast_object_list([obj], src)[0]

    def broadcast_object_list(self, obj_list: list[Any], src: int = 0) -> list[Any]:
        dist.broadcast_object_list(obj_list, group_src=src, group=self.cpu_group)
        return obj_list

    def send_object(self, obj: Any, dst: int) -> None:
        dist.send_object_list([obj], group_dst=dst, group=self.cpu_group)

    def recv_object(self, src: int) -> Any:
        received: list[Any] = [None]
        dist.recv_object_list(received, group_src=src, group=self.cpu_group)
        return received[0]

    def send(self, tensor: torch.Tensor, dst: int | None = None) -> None:
        peer = self._next if dst is None else dst
        dist.send(tensor.contiguous(), group_dst=peer, group=self.device_group)

    def recv(self, size: Sequence[int], dtype: torch.dtype, src: int | None = None) -> torch.Tensor:
        output = torch.empty(size, dtype=dtype, device=self.device)
        peer = self._previous if src is None else src
        dist.recv(output, group_src=peer, group=self.device_group)
        return output

    def barrier(self) -> None:
        dist.barrier(group=self.cpu_group)

    all_gatherv = _lacking("all_gatherv")
    reduce_scatterv = _lacking("reduce_scatterv")
    isend_object = _lacking("isend_object")
    broadcast_tensor_dict = _lacking("broadcast_tensor_dict")
    send_tensor_dict = recv_tensor_dict = _lacking("send_tensor_dict")
    isend_tensor_dict = irecv_tensor_dict = _lacking("isend_tensor_dict")

    def destroy(self) -> None:
        """Destroy both groups, unless they went with the default one; a second call does nothing."""
        if not self._destroyed and dist.is_initialized():
            dist.destroy_process_group(self.device_group)
            dist.destroy_process_group(self.cpu_group)
        self._destroyed = True

    @property
    def _next(self) -> int:
        return (self.rank_in_group + 1) % self.world_size

    @property
    def _previous(self) -> int:
        return (self.rank_in_group - 1) % self.world_size

    def _like_each(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        return [torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device) for _ in self.ranks]


_Groups = tuple[dist.ProcessGroup | None, dist.ProcessGroup | None]
"""The groups of this rank for the device and for the CPU; None on a rank in no list."""


def _new_groups(
    group_ranks: list[list[int]], settings: InitSettings, name: str, options: dict[str, Any]
) -> _Groups:
    device_limit, cpu_limit = _limit(settings.timeout), _limit(settings.cpu_timeout)
    return (
        _own([dist.new_group(r, device_limit, group_desc=name, **options) for r in group_ranks]),
        _own([dist.new_group(r, cpu_limit, _CPU_BACKEND, group_desc=f"{name}:cpu") for r in group_ranks]),
    )


def _split_groups(
    group_ranks: list[list[int]], settings: InitSettings, name: str, options: dict[str, Any]
) -> _Groups:
    device_limit, cpu_limit = _limit(settings.timeout), _limit(settings.cpu_timeout)
    group = dist.split_group(split_ranks=group_ranks, timeout=device_limit, group_desc=name, **options)
    return _own([group]), _own(
        [dist.new_group(r, cpu_limit, _CPU_BACKEND, group_desc=f"{name}:cpu") for r in group_ranks]
    )


def _own(groups: Sequence[Any]) -> dist.ProcessGroup | None:
    return next((group for group in groups if isinstance(group, dist.ProcessGroup)), None)


def _device(settings: InitSettings) -> torch.device:
    if settings.device_type == "cpu":
        return torch.device("cpu")
    return torch.device(settings.device_type, settings.local_rank)


def _default_backend(settings: InitSettings) -> str:
    """Return what is named, else the device's own for that alone, and what splitting needs beside it."""
    if settings.backend is not None and not settings.split_group:
        return settings.backend
    own = settings.backend or dist.get_default_backend_for_device(settings.device_type)
    beside = f"cpu:{_CPU_BACKEND}," if settings.split_group and settings.device_type != "cpu" else ""
    return f"{beside}{settings.device_type}:{own}"


def _limit(seconds: float | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.clone(memory_format=torch.contiguous_format)
