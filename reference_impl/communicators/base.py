"""The communicator on torch.distributed alone: right on every device whose process-group backend is right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.distributed as dist

from ..ordered_group import Members, OrderedGroup  # noqa: TID252
from ..tensor_dict import TensorDict  # noqa: TID252
from ..wire import (  # noqa: TID252
    REDUCTION_DTYPES,
    as_wire,
    compact,
    fresh,
    from_wire,
    require_reducible,
    sum_view,
    wire_numel,
    write_back,
)


class DeviceCommunicatorBase:
    """Collectives of one group over its device group.

    A vendor subclasses it, overrides what its device does better and registers the class with
    `register_communicator`. Inputs may be empty and of any strides. Every dtype moves; `reduction_dtypes` are
    summed and others refused with TypeError. Results are contiguous and fresh; only `broadcast` works in
    place.
    """

    reduction_dtypes: ClassVar[frozenset[torch.dtype]] = REDUCTION_DTYPES

    def __init__(
        self,
        cpu_group: dist.ProcessGroup,
        device: torch.device | None = None,
        device_group: dist.ProcessGroup | None = None,
        unique_name: str = "",
        global_ranks: Sequence[int] | None = None,
    ) -> None:
        """Take the groups of a coordinator; `device_group` None means that `cpu_group` serves both.

        `global_ranks` gives the order of the members, which torch's sorted groups do not keep.
        """
        self.cpu_group = cpu_group
        self.device_group = cpu_group if device_group is None else device_group
        self.device = torch.device("cpu") if device is None else device
        self.unique_name = unique_name
        self.ranks = list(global_ranks or dist.get_process_group_ranks(cpu_group))
        self.global_rank = self.rank = dist.get_rank()
        self.global_world_size = dist.get_world_size()
        self.world_size = len(self.ranks)
        self.rank_in_group = self.ranks.index(self.rank)
        self._members: Members = OrderedGroup(self.device_group, self.ranks)

    def all_reduce(self, input_: torch.Tensor) -> torch.Tensor:
        """Return the sum over the group; `input_` keeps its values."""
        require_reducible(input_.dtype, self.reduction_dtypes, "all_reduce")
        output = fresh(input_)
        self._members.all_reduce_(sum_view(output))
        return output

    def all_gather(self, input_: torch.Tensor, dim: int = -1) -> torch.Tensor:
        """Return every rank's tensor, concatenated along `dim` in rank order."""
        joined = self._members.all_gather(as_wire(input_))
        return concatenate(joined, input_, dim, self.world_size)

    def all_gatherv(
        self, input_: torch.Tensor | list[torch.Tensor], dim: int = 0, sizes: Sequence[int] | None = None
    ) -> torch.Tensor | list[torch.Tensor]:
        """Return every rank's tensor, concatenated along `dim`, where rank r's is `sizes[r]` long.

        A list of tensors gives a list. `sizes` None means that all ranks have the same size.
        """
        if isinstance(input_, list):
            return [self._all_gatherv(tensor, dim, sizes) for tensor in input_]
        return self._all_gatherv(input_, dim, sizes)

    def reduce_scatter(self, input_: torch.Tensor, dim: int = -1) -> torch.Tensor:
        """Return this rank's chunk of the sum: `input_.shape[dim] // world_size` long along `dim`."""
        require_reducible(input_.dtype, self.reduction_dtypes, "reduce_scatter")
        rows = compact(input_ if dim % input_.dim() == 0 else input_.movedim(dim, 0))
        own = self._sum_of_own_rows(rows)
        return own if dim % input_.dim() == 0 else compact(own.movedim(0, dim))

    def reduce_scatterv(
        self, input_: torch.Tensor, dim: int = -1, sizes: Sequence[int] | None = None
    ) -> torch.Tensor:
        """Return this rank's chunk of the sum: `sizes[rank_in_group]` long along `dim`, or equal chunks."""
        if sizes is None or len(set(sizes)) == 1:
            return self.reduce_scatter(input_, dim)
        require_reducible(input_.dtype, self.reduction_dtypes, "reduce_scatterv")
        rows = input_.detach().movedim(dim, 0)
        longest = max(sizes)
        padded = rows.new_zeros(self.world_size * longest, *rows.shape[1:])
        for rank, chunk in enumerate(rows.split_with_sizes(list(sizes))):
            padded[rank * longest :][: sizes[rank]] = chunk
        own = self._sum_of_own_rows(padded)[: sizes[self.rank_in_group]]
        return fresh(own.movedim(0, dim))

    def reduce_scatterv_into_output(
        self, input_: torch.Tensor, output: torch.Tensor, dim: int = -1, sizes: Sequence[int] | None = None
    ) -> None:
        """Write what `reduce_scatterv` returns into `output`, of any strides."""
        write_back(output, self.reduce_scatterv(input_, dim, sizes))

    def gather(self, input_: torch.Tensor, dst: int = 0, dim: int = -1) -> torch.Tensor | None:
        """Return every rank's tensor, concatenated along `dim` in rank order, at `dst`; None elsewhere."""
        joined = self._members.gather(as_wire(input_), dst)
        return None if joined is None else concatenate(joined, input_, dim, self.world_size)

    def broadcast(self, tensor: torch.Tensor, src: int = 0) -> torch.Tensor:
        """Overwrite `tensor`, of any strides, with that of `src`, and return it."""
        self._members.broadcast_(tensor, src)
        return tensor

    def send(self, tensor: torch.Tensor, dst: int) -> None:
        """Send `tensor` to `dst`."""
        self._members.send(as_wire(tensor), dst)

    def recv(self, size: Sequence[int], dtype: torch.dtype, src: int) -> torch.Tensor:
        """Return a tensor of shape `size` from `src`, on the device of the group."""
        tensor = torch.empty(size, dtype=dtype, device=self.device)
        self._members.recv_(as_wire(tensor), src)
        return tensor

    @property
    def supports_tensor_dict(self) -> bool:
        """Whether `send_tensor_dict` and `recv_tensor_dict` work; the same on all ranks of the group."""
        return False

    def send_tensor_dict(self, tensor_dict: TensorDict, dst: int) -> bool:
        """Send a dictionary by a way of this device's own; not here."""
        raise NotImplementedError(_no_tensor_dicts(type(self).__name__, "send_tensor_dict"))

    def recv_tensor_dict(self, src: int) -> TensorDict | None:
        """Receive a dictionary by a way of this device's own; not here."""
        raise NotImplementedError(_no_tensor_dicts(type(self).__name__, "recv_tensor_dict"))

    def destroy(self) -> None:
        """Let go of the process groups, whose threads and sockets live as long as somebody refers to them."""
        for name in ("cpu_group", "device_group", "_members"):
            self.__dict__.pop(name, None)

    def _all_gatherv(self, input_: torch.Tensor, dim: int, sizes: Sequence[int] | None) -> torch.Tensor:
        if sizes is None or len(set(sizes)) == 1:
            return self.all_gather(input_, dim)
        rows = input_.movedim(dim, 0)
        flat = as_wire(rows)
        row_length = wire_numel(rows.dtype, rows.shape[1:])
        padded = flat.new_zeros(max(sizes) * row_length)
        padded[: flat.numel()] = flat
        gathered = self._members.all_gather(padded).view(self.world_size, -1)
        parts = [part[: size * row_length] for part, size in zip(gathered, sizes, strict=True)]
        joined = from_wire(torch.cat(parts), input_.dtype, (sum(sizes), *rows.shape[1:]))
        return compact(joined.movedim(0, dim))

    def _sum_of_own_rows(self, rows: torch.Tensor) -> torch.Tensor:
        """Sum contiguous `rows` (world_size * n, …) over the ranks and return the n of this rank."""
        real = sum_view(rows)
        if real.dim() == 1:
            return self._members.reduce_scatter(real)
        summed = self._members.reduce_scatter(real.view(-1))
        own = summed.view(real.shape[0] // self.world_size, *real.shape[1:])
        return torch.view_as_complex(own) if rows.is_complex() else own


def _no_tensor_dicts(communicator: str, operation: str) -> str:
    return (
        f"{communicator}.{operation}: supports_tensor_dict is False, so it has no way of its own for tensor "
        f"dicts; call {operation} of the coordinator, which takes torch.distributed then"
    )


def concatenate(joined: torch.Tensor, like: torch.Tensor, dim: int, ranks: int) -> torch.Tensor:
    """Join along `dim` what so many ranks passed, each of the dtype and shape of `like`.

    `joined` has it one after the other, as `as_wire` made it.
    """
    shape = list(like.shape)
    shape[dim] *= ranks
    if dim % like.dim() == 0:
        return from_wire(joined, like.dtype, shape)
    stacked = from_wire(joined, like.dtype, (ranks, *like.shape))
    return compact(stacked.movedim(0, dim % like.dim())).view(shape)
