"""Results against what they must be: by bits, within a bound, and between ranks."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .exact import ExactSum
from .formats import contiguous_copy, raw_bytes

Index = tuple[int, ...]


@dataclass(frozen=True)
class Element:
    """One number, in decimal and as the hexadecimal bits of its dtype."""

    decimal: str
    bits: str

    def __str__(self) -> str:
        return f"{self.decimal} ({self.bits})"


@dataclass(frozen=True)
class Mismatch:
    """Where and how a result is wrong. `index` is the first bad element, or the worst one against a bound.

    `want` is text where it is no number of the result's dtype. `ratio` is error / bound; None where bits
    had to agree.
    """

    rank: int
    index: Index
    got: Element
    want: Element | str
    differing: int
    total: int
    ratio: float | None = None

    def __str__(self) -> str:
        count = f"{self.differing} of {self.total} elements differ"
        if self.ratio is not None:
            outside = f"{self.differing} of {self.total} elements are out of bounds"
            count = f"the error is {self.ratio:.3g} times the bound; {outside}"
        return f"index {self.index}: got {self.got}, want {self.want}; {count}"


def element(tensor: torch.Tensor, index: Index) -> Element:
    """Return one element of a tensor as text."""
    one = contiguous_copy(tensor[index]).cpu()
    pattern = int.from_bytes(bytes(raw_bytes(one).tolist()), sys.byteorder)
    return Element(str(one.item()), f"0x{pattern:0{2 * one.element_size()}x}")


def compare_exact(
    got: torch.Tensor, want: torch.Tensor, *, rank: int = 0, zeros_equal: bool = False
) -> Mismatch | None:
    """Compare bit by bit; None means equal. With `zeros_equal` the signs of zeros do not count.

    Raises ValueError for tensors of different shape or dtype.
    """
    _check_alike(got, want)
    got_bytes, want_bytes = raw_bytes(got), raw_bytes(want)
    if torch.equal(got_bytes, want_bytes):
        return None
    differs = (got_bytes != want_bytes).reshape(got.numel(), -1).any(dim=1).reshape(got.shape)
    if zeros_equal and got.is_floating_point():
        differs &= ~(_fp64(got).eq(0) & _fp64(want).eq(0))
    if not differs.any():
        return None
    index = _first(differs)
    return Mismatch(
        rank, index, element(got, index), element(want, index), int(differs.sum()), differs.numel()
    )


def compare_bounded(
    got: torch.Tensor, want: ExactSum, bound: torch.Tensor, *, rank: int = 0
) -> float | Mismatch:
    """Compare with exact sums: the largest error / bound if it is at most 1, else the worst element.

    A result that is not finite is infinitely wrong, and so is any error where the bound is 0.
    """
    wide = _fp64(got)
    error = ((wide - want.high) - want.low).abs()
    ratio = torch.where(error == 0, 0.0, error / bound).masked_fill(~wide.isfinite(), math.inf)
    if not ratio.numel():
        return 0.0
    margin = float(ratio.max())
    if margin <= 1.0:
        return margin
    index = _first(ratio == margin)
    wanted = f"{want.high[index].item()!r} within {bound[index].item():.6g}"
    outside = int((ratio > 1.0).sum())
    return Mismatch(rank, index, element(got, index), wanted, outside, ratio.numel(), margin)


def compare_ranks(values: Sequence[torch.Tensor]) -> list[Mismatch]:
    """Compare every rank's value with that of rank 0, bit by bit, and return what differs, a rank each."""
    found = (compare_exact(value, values[0], rank=rank) for rank, value in enumerate(values))
    return [mismatch for mismatch in found if mismatch is not None]


def _check_alike(got: torch.Tensor, want: torch.Tensor) -> None:
    if got.shape != want.shape or got.dtype != want.dtype:
        raise ValueError(
            f"cannot compare {got.dtype} of shape {tuple(got.shape)} "
            f"with {want.dtype} of shape {tuple(want.shape)}"
        )


def _fp64(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().cpu().to(torch.float64)


def _first(flags: torch.Tensor) -> Index:
    return tuple(flags.nonzero()[0].tolist())
