"""Collectives as operators of torch, such as `torch.ops.vdist.all_reduce`, which compilers keep as they are.

Each takes the name of a group and finds the group when it runs, so that compiled code outlives groups. All
are functional, as their schemas declare, but for `broadcast_`: the result shares memory with no input. That
holds because coordinators never write into an input; a copy that is made only while
`torch.compiler.is_compiling()` would never be made here, where it is False
(https://github.com/vllm-project/vllm/issues/39844).
"""

# ruff: noqa: ARG001 - a fake implementation takes what the real one takes

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch

from . import names

NAMESPACE = "vdist"
# The operator of each collective of a coordinator.
OPERATORS = {
    "all_reduce": "vdist::all_reduce",
    "all_gather": "vdist::all_gather",
    "all_gatherv": "vdist::all_gatherv",
    "reduce_scatter": "vdist::reduce_scatter",
    "reduce_scatterv": "vdist::reduce_scatterv",
    "broadcast": "vdist::broadcast_",
}
_Library: Any = torch.library.Library  # torch has no types for it
_library = _Library(NAMESPACE, "FRAGMENT")
_vdist: Any = getattr(torch.ops, NAMESPACE)


class CollectiveGroup(Protocol):
    """What an operator asks of the group that it finds."""

    world_size: int
    rank_in_group: int

    def all_reduce(self, input_: torch.Tensor) -> torch.Tensor: ...
    def all_gather(self, input_: torch.Tensor, dim: int) -> torch.Tensor: ...
    def all_gatherv(self, input_: torch.Tensor, dim: int, sizes: Sequence[int]) -> torch.Tensor: ...
    def reduce_scatter(self, input_: torch.Tensor, dim: int) -> torch.Tensor: ...
    def reduce_scatterv(self, input_: torch.Tensor, dim: int, sizes: Sequence[int]) -> torch.Tensor: ...
    def broadcast(self, input_: torch.Tensor, src: int) -> torch.Tensor: ...


def _all_reduce(input_: torch.Tensor, group_name: str) -> torch.Tensor:
    return _find(group_name).all_reduce(input_)


def _all_reduce_fake(input_: torch.Tensor, group_name: str) -> torch.Tensor:
    return input_.new_empty(input_.shape)


def _all_gather(input_: torch.Tensor, dim: int, world_size: int, group_name: str) -> torch.Tensor:
    return _find_of_size(group_name, world_size).all_gather(input_, dim)


def _all_gather_fake(input_: torch.Tensor, dim: int, world_size: int, group_name: str) -> torch.Tensor:
    return _empty(input_, dim, input_.shape[dim] * world_size)


def _all_gatherv(input_: torch.Tensor, dim: int, sizes: Sequence[int], group_name: str) -> torch.Tensor:
    return _find_of_size(group_name, len(sizes)).all_gatherv(input_, dim, sizes)


def _all_gatherv_fake(input_: torch.Tensor, dim: int, sizes: Sequence[int], group_name: str) -> torch.Tensor:
    return _empty(input_, dim, sum(sizes))


def _reduce_scatter(input_: torch.Tensor, dim: int, world_size: int, group_name: str) -> torch.Tensor:
    return _find_of_size(group_name, world_size).reduce_scatter(input_, dim)


def _reduce_scatter_fake(input_: torch.Tensor, dim: int, world_size: int, group_name: str) -> torch.Tensor:
    if input_.shape[dim] % world_size:
        raise ValueError(
            f"reduce_scatter of group {group_name!r}: size {input_.shape[dim]} of dim {dim} does not divide "
            f"by the world size {world_size}; pad it, or use reduce_scatterv with sizes"
        )
    return _empty(input_, dim, input_.shape[dim] // world_size)


def _reduce_scatterv(
    input_: torch.Tensor, dim: int, sizes: Sequence[int], rank_in_group: int, group_name: str
) -> torch.Tensor:
    group = _find_of_size(group_name, len(sizes))
    if rank_in_group != group.rank_in_group:
        raise ValueError(
            f"rank_in_group={rank_in_group} of reduce_scatterv, and this rank is {group.rank_in_group} in "
            f"group {group_name!r}: pass that, or compile again for the group that has the name now"
        )
    return group.reduce_scatterv(input_, dim, sizes)


def _reduce_scatterv_fake(
    input_: torch.Tensor, dim: int, sizes: Sequence[int], rank_in_group: int, group_name: str
) -> torch.Tensor:
    return _empty(input_, dim, sizes[rank_in_group])


def _broadcast_(input_: torch.Tensor, src: int, group_name: str) -> None:
    _find(group_name).broadcast(input_, src)


def _broadcast_fake(input_: torch.Tensor, src: int, group_name: str) -> None:
    """Make nothing: the result is the input, which the schema declares as written to."""


def _define(name: str, schema: str, real: Callable[..., object], fake: Callable[..., object]) -> None:
    _library.define(name + schema, tags=(torch.Tag.pt2_compliant_tag,))
    # One kernel for every device: the group knows which device is its own, and refuses tensors of others.
    _library.impl(name, real, "CompositeExplicitAutograd")
    torch.library.register_fake(f"{NAMESPACE}::{name}", fake, lib=_library)


def _find(group_name: str) -> CollectiveGroup:
    return cast("CollectiveGroup", names.find(group_name))


def _find_of_size(group_name: str, world_size: int) -> CollectiveGroup:
    """Find a group of that size. Another one may have the name now; results would have another shape."""
    group = _find(group_name)
    if group.world_size != world_size:
        raise ValueError(
            f"group {group_name!r} has {group.world_size} ranks, and the operator was called for "
            f"{world_size}: compile again for the group that has the name now"
        )
    return group


def _empty(input_: torch.Tensor, dim: int, size: int) -> torch.Tensor:
    """Return what a collective along `dim` returns, without values: contiguous, `size` long along `dim`."""
    shape = list(input_.shape)
    shape[dim] = size
    return input_.new_empty(shape)


_define("all_reduce", "(Tensor input_, str group_name) -> Tensor", _all_reduce, _all_reduce_fake)
_define(
    "all_gather",
    "(Tensor input_, int dim, int world_size, str group_name) -> Tensor",
    _all_gather,
    _all_gather_fake,
)
_define(
    "all_gatherv",
    "(Tensor input_, int dim, SymInt[] sizes, str group_name) -> Tensor",
    _all_gatherv,
    _all_gatherv_fake,
)
_define(
    "reduce_scatter",
    "(Tensor input_, int dim, int world_size, str group_name) -> Tensor",
    _reduce_scatter,
    _reduce_scatter_fake,
)
_define(
    "reduce_scatterv",
    "(Tensor input_, int dim, SymInt[] sizes, int rank_in_group, str group_name) -> Tensor",
    _reduce_scatterv,
    _reduce_scatterv_fake,
)
_define("broadcast_", "(Tensor(a!) input_, int src, str group_name) -> ()", _broadcast_, _broadcast_fake)


@dataclass(frozen=True)
class Operators:
    """Calls the operators for one group, with what they need to know of it where it is compiled."""

    group_name: str
    world_size: int
    rank_in_group: int

    def all_reduce(self, input_: torch.Tensor) -> torch.Tensor:
        summed: torch.Tensor = _vdist.all_reduce(input_, self.group_name)
        return summed

    def all_gather(self, input_: torch.Tensor, dim: int) -> torch.Tensor:
        gathered: torch.Tensor = _vdist.all_gather(input_, dim, self.world_size, self.group_name)
        return gathered

    def all_gatherv(
        self, input_: torch.Tensor | list[torch.Tensor], dim: int, sizes: Sequence[int] | None
    ) -> torch.Tensor | list[torch.Tensor]:
        """Raise ValueError without `sizes`: what the ranks tell each other, no compiler can know."""
        if sizes is None:
            raise ValueError(
                f"all_gatherv of group {self.group_name!r} in compiled code needs sizes, one for each rank: "
                "pass them, or keep the call out of the compiled code (torch.compiler.disable)"
            )
        if isinstance(input_, list):
            return [_vdist.all_gatherv(tensor, dim, sizes, self.group_name) for tensor in input_]
        gathered: torch.Tensor = _vdist.all_gatherv(input_, dim, sizes, self.group_name)
        return gathered

    def reduce_scatter(self, input_: torch.Tensor, dim: int) -> torch.Tensor:
        chunk: torch.Tensor = _vdist.reduce_scatter(input_, dim, self.world_size, self.group_name)
        return chunk

    def reduce_scatterv(self, input_: torch.Tensor, dim: int, sizes: Sequence[int] | None) -> torch.Tensor:
        if sizes is None:
            return self.reduce_scatter(input_, dim)
        chunk: torch.Tensor = _vdist.reduce_scatterv(input_, dim, sizes, self.rank_in_group, self.group_name)
        return chunk

    def broadcast(self, input_: torch.Tensor, src: int) -> torch.Tensor:
        _vdist.broadcast_(input_, src, self.group_name)
        return input_
