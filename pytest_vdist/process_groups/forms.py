"""How each operation of torch.distributed takes its tensors, and where what it moves must arrive."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from .names import all_gather_tensor, reduce_scatter_tensor

if TYPE_CHECKING:
    from .calls import Call

Shape = tuple[int, ...]
Tensors = list[torch.Tensor]


@dataclass(frozen=True)
class At:
    """A call as one of the `ranks` of a group makes it; `rank` is its rank in the group."""

    call: Call
    rank: int
    ranks: int

    @property
    def shape(self) -> Shape:
        return self.call.shape

    @property
    def is_root(self) -> bool:
        return self.rank == self.call.root

    def sent(self) -> list[Shape]:
        """Return the shapes of this rank's parts for each rank, of an all-to-all."""
        return [_long(self.shape, _rows(self.rank, dst, self.call.parts)) for dst in range(self.ranks)]

    def received(self) -> list[Shape]:
        return [_long(self.shape, _rows(src, self.rank, self.call.parts)) for src in range(self.ranks)]

    def own(self, rank: int) -> Shape:
        """Return the shape of what a rank gives to an all-gather."""
        return _long(self.shape, 1 + rank) if self.call.parts == "unequal" else self.shape


@dataclass(frozen=True, eq=False)
class Passed:
    """What a rank passes: tensors that are read, tensors that are written, and further arguments."""

    at: At
    inputs: Tensors
    outputs: Tensors
    options: dict[str, Any]

    def rooted(self, kind: str) -> dict[str, Any]:
        """Return the further arguments with the root, as "src" or "dst"."""
        call = self.at.call
        if call.root_is_global:
            return self.options | {kind: dist.get_global_rank(self.options["group"], call.root)}
        return self.options | {f"group_{kind}": call.root}

    def reduced(self) -> dict[str, Any]:
        """Return the further arguments with the reduction."""
        return self.options | {"op": getattr(dist.ReduceOp, self.at.call.reduction.upper())}


@dataclass(frozen=True)
class Form:
    """One operation.

    `inputs` and `outputs` give the shapes of tensors that a rank reads and only writes; `moved` gives the
    results by rank, from the inputs by rank, None where nothing is written. `rooted` says that one rank is
    special, `reducing` that results are sums or the like, `in_place` that what is read is written too.
    """

    make: Callable[[Passed], Any]
    inputs: Callable[[At], list[Shape]]
    outputs: Callable[[At], list[Shape]]
    moved: Callable[[Call, Sequence[Tensors]], Sequence[Tensors | None]]
    rooted: bool = False
    reducing: bool = False
    in_place: bool = False


def _rows(src: int, dst: int, parts: str) -> int:
    return (2 * src + dst) % 3 if parts == "unequal" else 1


def _long(shape: Shape, count: int) -> Shape:
    return (count * shape[0], *shape[1:])


def _whole(shapes: list[Shape]) -> list[Shape]:
    return [(sum(shape[0] for shape in shapes), *shapes[0][1:])]


def _one(at: At) -> list[Shape]:
    return [at.shape]


def _none(_: At) -> list[Shape]:
    return []


def _one_for_each(at: At) -> list[Shape]:
    return [at.shape] * at.ranks


def _one_for_all(at: At) -> list[Shape]:
    return [(at.ranks, *at.shape) if at.call.parts == "stacked" else _long(at.shape, at.ranks)]


def _at_root(at: At) -> list[Shape]:
    return _one_for_each(at) if at.is_root else []


def _from_root(call: Call, by_rank: Sequence[Tensors]) -> Sequence[Tensors]:
    return [by_rank[call.root]] * len(by_rank)


def _from_all(_: Call, by_rank: Sequence[Tensors]) -> Sequence[Tensors]:
    return [[each[0] for each in by_rank]] * len(by_rank)


def _to_root(call: Call, by_rank: Sequence[Tensors]) -> Sequence[Tensors | None]:
    gathered = _from_all(call, by_rank)
    return [parts if rank == call.root else None for rank, parts in enumerate(gathered)]


def _dealt_out(call: Call, by_rank: Sequence[Tensors]) -> Sequence[Tensors]:
    return [[part] for part in by_rank[call.root]]


def _exchanged(_: Call, by_rank: Sequence[Tensors]) -> Sequence[Tensors]:
    return [[each[rank] for each in by_rank] for rank in range(len(by_rank))]


def _pieces_exchanged(call: Call, by_rank: Sequence[Tensors]) -> Sequence[Tensors]:
    sizes = [[shape[0] for shape in At(call, rank, len(by_rank)).sent()] for rank in range(len(by_rank))]
    pieces = [list(torch.split(each[0], of_rank)) for each, of_rank in zip(by_rank, sizes, strict=True)]
    return _exchanged(call, pieces)


def _reduced_everywhere(_: Call, by_rank: Sequence[Tensors]) -> Sequence[Tensors]:
    """Return the addends of each rank's result: here the same for all."""
    return [[each[0] for each in by_rank]] * len(by_rank)


def _addends_of_parts(_: Call, by_rank: Sequence[Tensors]) -> Sequence[Tensors]:
    ranks = len(by_rank)
    parts = [each if len(each) == ranks else list(each[0].chunk(ranks)) for each in by_rank]
    return _exchanged(_, parts)


def _all_to_all_single(passed: Passed) -> Any:
    at = passed.at
    splits: dict[str, Any] = {}
    if at.call.parts == "unequal":
        splits = {
            "output_split_sizes": [shape[0] for shape in at.received()],
            "input_split_sizes": [shape[0] for shape in at.sent()],
        }
    return dist.all_to_all_single(passed.outputs[0], passed.inputs[0], **splits, **passed.options)


FORMS = {
    "all_reduce": Form(
        lambda p: dist.all_reduce(p.inputs[0], **p.reduced()),
        _one,
        _none,
        _reduced_everywhere,
        reducing=True,
        in_place=True,
    ),
    "reduce": Form(
        lambda p: dist.reduce(p.inputs[0], **p.reduced() | p.rooted("dst")),
        _one,
        _none,
        _to_root,
        rooted=True,
        reducing=True,
        in_place=True,
    ),
    "reduce_scatter": Form(
        lambda p: dist.reduce_scatter(p.outputs[0], p.inputs, **p.reduced()),
        _one_for_each,
        _one,
        _addends_of_parts,
        reducing=True,
    ),
    "reduce_scatter_tensor": Form(
        lambda p: reduce_scatter_tensor(p.outputs[0], p.inputs[0], **p.reduced()),
        _one_for_all,
        _one,
        _addends_of_parts,
        reducing=True,
    ),
    "broadcast": Form(
        lambda p: dist.broadcast(p.inputs[0], **p.rooted("src")),
        _one,
        _none,
        _from_root,
        rooted=True,
        in_place=True,
    ),
    "all_gather": Form(
        lambda p: dist.all_gather(p.outputs, p.inputs[0], **p.options),
        lambda at: [at.own(at.rank)],
        lambda at: [at.own(rank) for rank in range(at.ranks)],
        _from_all,
    ),
    "all_gather_into_tensor": Form(
        lambda p: all_gather_tensor(p.outputs[0], p.inputs[0], **p.options),
        _one,
        _one_for_all,
        _from_all,
    ),
    "gather": Form(
        lambda p: dist.gather(p.inputs[0], p.outputs or None, **p.rooted("dst")),
        _one,
        _at_root,
        _to_root,
        rooted=True,
    ),
    "scatter": Form(
        lambda p: dist.scatter(p.outputs[0], p.inputs or None, **p.rooted("src")),
        _at_root,
        _one,
        _dealt_out,
        rooted=True,
    ),
    "all_to_all": Form(
        lambda p: dist.all_to_all(p.outputs, p.inputs, **p.options), At.sent, At.received, _exchanged
    ),
    "all_to_all_single": Form(
        _all_to_all_single,
        lambda at: _whole(at.sent()),
        lambda at: _whole(at.received()),
        _pieces_exchanged,
    ),
}
