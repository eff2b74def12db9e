"""Hypothesis strategies for tests of distributed code: tensors, groups, objects, dictionaries, programs.

Every strategy shrinks towards the simplest value: few ranks in order, small shapes, float32, contiguous.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from hypothesis import strategies as st

from pytest_vdist.judge.buffers import LAYOUTS, fit_values, guard, layout_fits
from pytest_vdist.judge.inputs import exact_sum_input, movement_input
from pytest_vdist.programs.drawing import CALL_BYTES, program_from
from pytest_vdist.programs.model import Partition, Program
from pytest_vdist.programs.scope import OBJECTS, SHAPES, Scope

__all__ = ["Scope", "partitions", "programs", "python_objects", "tensor_dicts", "tensors"]

MOST_CALLS = 9


def programs(scope: Scope | None = None, *, most_calls: int = MOST_CALLS) -> st.SearchStrategy[Program]:
    """Draw programs for the ranks of `scope`: valid for what it declares, of up to `most_calls` calls.

    Half of them have five calls or more, of nine. Run them by the fixture `program_run`.
    """
    chosen = scope or Scope()
    # One string for all calls: Hypothesis repeats parts of an example that are alike.
    size = most_calls * CALL_BYTES
    return st.binary(min_size=size, max_size=size).map(lambda drawn: program_from(chosen, drawn))


def partitions(world_size: int) -> st.SearchStrategy[Partition]:
    """Draw partitions of the ranks 0 to world_size - 1 into groups, in any order."""

    @st.composite
    def drawn(draw: st.DrawFn) -> Partition:
        ranks = draw(st.permutations(range(world_size)))
        cuts = sorted(draw(st.sets(st.integers(1, world_size - 1)))) if world_size > 1 else []
        edges = [0, *cuts, world_size]
        return tuple(tuple(ranks[a:b]) for a, b in itertools.pairwise(edges))

    return drawn()


def tensors(
    dtypes: Sequence[torch.dtype] = (torch.float32,),
    shapes: st.SearchStrategy[tuple[int, ...]] | None = None,
    *,
    special: bool = True,
    layouts: Sequence[str] = LAYOUTS,
) -> st.SearchStrategy[torch.Tensor]:
    """Draw CPU tensors of these dtypes, in these layouts (see `pytest_vdist.judge.LAYOUTS`).

    `shapes` None draws shapes of 0 to 4 dimensions, empty ones too. With `special`, elements are any bits:
    NaNs, infinities, subnormals and zeros of both signs are frequent. Without, they are finite numbers.
    """

    @st.composite
    def drawn(draw: st.DrawFn) -> torch.Tensor:
        shape = draw(st.sampled_from(SHAPES) if shapes is None else shapes)
        dtype = draw(st.sampled_from(list(dtypes)))
        layout = draw(st.sampled_from([each for each in layouts if layout_fits(each, shape)]))
        seed = draw(st.integers(0, 1 << 16))
        if special:
            values = movement_input(shape, dtype, rank=0, seed=seed)
        else:
            values = exact_sum_input(shape, dtype, rank=0, world_size=2, seed=seed)
        return guard(fit_values(values, layout), layout).tensor

    return drawn()


def python_objects() -> st.SearchStrategy[Any]:
    """Draw picklable Python values that are equal to their copies: nested, empty and large ones."""
    leaves = st.sampled_from(OBJECTS) | st.text() | st.binary() | st.integers() | st.floats(allow_nan=False)
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.tuples(inner, inner)
            | st.dictionaries(st.text(max_size=3), inner, max_size=3)
        ),
        max_leaves=6,
    )


def tensor_dicts(
    dtypes: Sequence[torch.dtype] = (torch.float32,), *, layouts: Sequence[str] = LAYOUTS
) -> st.SearchStrategy[dict[str, Any]]:
    """Draw dictionaries of CPU tensors and Python values, None and empty tensors among them."""
    values = tensors(dtypes, layouts=layouts) | st.none() | python_objects()
    return st.dictionaries(st.text(max_size=8), values, max_size=5)
