"""What every rank of a group must get, by the definition of each collective.

Every function takes the inputs of all ranks in group order and returns the results in group order. Data is
placed element range by element range, bit by bit; sums are exact. Nothing here is shared with an
implementation.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch

from .exact import exact_total
from .formats import bit_view


def all_reduce(inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Sum over the ranks, on every rank. Raises ValueError if the sum is not exact in the dtype."""
    return [exact_total(inputs)] * len(inputs)


def all_gather(inputs: Sequence[torch.Tensor], dim: int = -1) -> list[torch.Tensor]:
    """Return on every rank the inputs, all of one shape, one after the other along `dim`."""
    shapes = {tuple(each.shape) for each in inputs}
    if len(shapes) != 1:
        raise ValueError(f"all_gather takes inputs of one shape, got {sorted(shapes)}")
    return [_joined(inputs, dim)] * len(inputs)


def all_gatherv(
    inputs: Sequence[torch.Tensor], dim: int = 0, sizes: Sequence[int] | None = None
) -> list[torch.Tensor]:
    """Return on every rank the inputs one after the other along `dim`, where their sizes may differ.

    `sizes` are the sizes along `dim` by rank; None means all equal.
    """
    if sizes is None:
        return all_gather(inputs, dim)
    actual = [_size(each, dim) for each in inputs]
    if actual != list(sizes):
        raise ValueError(f"inputs have the sizes {actual} along dimension {dim}, but sizes={list(sizes)}")
    return [_joined(inputs, dim)] * len(inputs)


def reduce_scatter(inputs: Sequence[torch.Tensor], dim: int = -1) -> list[torch.Tensor]:
    """Return on rank r the r-th of equal parts, along `dim`, of the sum over the ranks."""
    return [exact_total(addends) for addends in scattered(inputs, dim)]


def reduce_scatterv(
    inputs: Sequence[torch.Tensor], dim: int = -1, sizes: Sequence[int] | None = None
) -> list[torch.Tensor]:
    """Return on rank r the r-th part, `sizes[r]` long along `dim`, of the sum; None means equal parts."""
    return [exact_total(addends) for addends in scattered(inputs, dim, sizes)]


def gather(inputs: Sequence[torch.Tensor], dst: int = 0, dim: int = -1) -> list[torch.Tensor | None]:
    """Return on rank `dst` of the group the inputs one after the other along `dim`; None on the others."""
    joined = all_gather(inputs, dim)[_checked(dst, inputs)]
    return [joined if rank == dst else None for rank in range(len(inputs))]


def broadcast(inputs: Sequence[torch.Tensor], src: int = 0) -> list[torch.Tensor]:
    """Return on every rank the input of rank `src` of the group."""
    return [inputs[_checked(src, inputs)]] * len(inputs)


def scattered(
    inputs: Sequence[torch.Tensor], dim: int = -1, sizes: Sequence[int] | None = None
) -> list[list[torch.Tensor]]:
    """Return for every rank the addends of its part along `dim`, as a reduce-scatter sums them.

    Raises ValueError if the parts do not make up the dimension.
    """
    ranks = len(inputs)
    total = _size(inputs[0], dim)
    if sizes is None:
        if total % ranks:
            raise ValueError(f"dimension {dim} of size {total} has no {ranks} equal parts")
        sizes = [total // ranks] * ranks
    if len(sizes) != ranks or sum(sizes) != total:
        raise ValueError(
            f"sizes={list(sizes)} for {ranks} ranks do not make up dimension {dim} of size {total}"
        )
    starts = [sum(sizes[:rank]) for rank in range(ranks)]
    return [
        [each.narrow(dim, start, size) for each in inputs] for start, size in zip(starts, sizes, strict=True)
    ]


def _checked(rank: int, inputs: Sequence[torch.Tensor]) -> int:
    if not 0 <= rank < len(inputs):
        raise ValueError(f"rank {rank} is not in a group of {len(inputs)} ranks")
    return rank


def _size(tensor: torch.Tensor, dim: int) -> int:
    if not -tensor.dim() <= dim < tensor.dim():
        raise ValueError(f"a tensor of shape {tuple(tensor.shape)} has no dimension {dim}")
    return tensor.shape[dim]


def _joined(inputs: Sequence[torch.Tensor], dim: int) -> torch.Tensor:
    sizes = [_size(each, dim) for each in inputs]
    shape = list(inputs[0].shape)
    shape[dim] = sum(sizes)
    joined = torch.empty(shape, dtype=inputs[0].dtype)
    for each, size, stop in zip(inputs, sizes, itertools.accumulate(sizes), strict=True):
        place = joined.narrow(dim, stop - size, size)
        if place.shape != each.shape or place.dtype != each.dtype:
            raise ValueError(
                f"shape {tuple(each.shape)} of {each.dtype} cannot be joined with "
                f"{tuple(inputs[0].shape)} of {inputs[0].dtype} along dimension {dim}"
            )
        bit_view(place).copy_(bit_view(each))
    return joined
