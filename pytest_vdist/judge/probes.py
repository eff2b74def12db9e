"""What a sum reveals of how it was made: the precision of its accumulator and the order of its additions.

Each ordered pair of ranks (i, j) has an element where i has +B, j has -B and every other rank has 1.
Where B swallows a 1 it is added to, the result counts the ones that were added after the two had cancelled.
Both probes assume rounding to nearest, and need three ranks or more.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .formats import float_format_of

Tree = int | tuple["Tree", "Tree"]

_WIDEST = 64


@dataclass(frozen=True)
class Accumulator:
    """The precision in bits that sums were seen to be made with; `at_least` where no larger B was tried."""

    precision: int
    at_least: bool

    def __str__(self) -> str:
        return f"{'at least ' if self.at_least else ''}{self.precision} bits"


@dataclass(frozen=True)
class SumProbe:
    """A message for `all_reduce` whose sum tells how it was made, and what it tells.

    It holds every pair with every B, in blocks of `block` elements, `blocks` times over: an algorithm that
    treats parts of a message differently shows it if every part holds a block.
    """

    dtype: torch.dtype
    world_size: int
    blocks: int = 1

    def __post_init__(self) -> None:
        if self.world_size < 3:
            raise ValueError(f"the probe needs at least 3 ranks, got {self.world_size}")

    @property
    def exponents(self) -> range:
        """The exponents of B that are tried: enough for an fp64 accumulator and a thousand ranks."""
        return range(1, min(float_format_of(self.dtype).e_max, _WIDEST) + 1)

    @property
    def most_precise(self) -> int:
        """The largest precision that can be told, in bits."""
        return self.exponents[-1] + 1

    @property
    def pairs(self) -> list[tuple[int, int]]:
        return list(itertools.permutations(range(self.world_size), 2))

    @property
    def block(self) -> int:
        return len(self.exponents) * len(self.pairs)

    def input(self, rank: int) -> torch.Tensor:
        """Return what the rank of the group puts in, a 1-D tensor on the CPU."""
        signs = torch.tensor([(rank == plus) - (rank == minus) for plus, minus in self.pairs])
        values = [torch.where(signs == 0, 1.0, signs * math.ldexp(1.0, each)) for each in self.exponents]
        return torch.cat(values).to(self.dtype).repeat(self.blocks)

    def accumulator(self, total: torch.Tensor) -> Accumulator:
        """Find the smallest B that swallows a one: p bits hold 2**(p-1) + 1, but not 2**p + 1."""
        untouched = float(self.world_size - 2)
        by_exponent = self._by_block(total).movedim(1, 0)
        for exponent, values in zip(self.exponents, by_exponent, strict=True):
            if not bool((values == untouched).all()):
                return Accumulator(exponent, at_least=False)
        return Accumulator(self.most_precise, at_least=True)

    def trees(self, total: torch.Tensor) -> list[Tree | None]:
        """Return the distinct trees of additions in the message.

        None stands for sums that no tree of roundings gives; an accumulator so wide that no B swallows every
        one gives an empty list.
        """
        swallows_all = self.accumulator(total).precision + math.ceil(math.log2(self.world_size)) + 1
        if swallows_all not in self.exponents:
            return []
        sums = self._by_block(total)[:, self.exponents.index(swallows_all)]
        return [self._tree(each.tolist()) for each in torch.unique(sums, dim=0)]

    def _by_block(self, total: torch.Tensor) -> torch.Tensor:
        return total.cpu().to(torch.float64).reshape(self.blocks, len(self.exponents), len(self.pairs))

    def _tree(self, sums: Sequence[float]) -> Tree | None:
        """Build the tree from the number of ranks below the node where the two ranks of each pair meet."""
        below = {pair: self.world_size - value for pair, value in zip(self.pairs, sums, strict=True)}
        tree = _join(list(range(self.world_size)), below)
        if tree is None or any(_leaves_where(tree, *pair) != leaves for pair, leaves in below.items()):
            return None
        return tree


def tree_text(tree: Tree | None) -> str:
    """Return `((0+1)+(2+3))`: the ranks, and which of their sums is made of which."""
    if tree is None:
        return "no order to be seen"
    return str(tree) if isinstance(tree, int) else f"({tree_text(tree[0])}+{tree_text(tree[1])})"


def _join(ranks: list[int], below: dict[tuple[int, int], float]) -> Tree | None:
    """Split the ranks into those that meet the first one below the top, and the others."""
    if len(ranks) == 1:
        return ranks[0]
    first = ranks[0]
    near = [rank for rank in ranks if rank == first or below[first, rank] < len(ranks)]
    far = [rank for rank in ranks if rank not in near]
    if not far:
        return None
    left, right = _join(near, below), _join(far, below)
    return None if left is None or right is None else (left, right)


def _leaves_where(tree: Tree, one: int, other: int) -> int:
    """Return the number of ranks below the node where two ranks meet."""
    assert not isinstance(tree, int)
    for side in tree:
        ranks = _ranks(side)
        if one in ranks and other in ranks:
            return _leaves_where(side, one, other)
    return len(_ranks(tree))


def _ranks(tree: Tree) -> set[int]:
    return {tree} if isinstance(tree, int) else _ranks(tree[0]) | _ranks(tree[1])
