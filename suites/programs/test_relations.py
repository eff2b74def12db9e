"""What must be equal whatever the values are: two ways to one result, in every mode, with any history."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from pytest_vdist import Coordinator, CoordinatorRun, compiled, coordinator
from pytest_vdist.judge import exact_sum_input, movement_input, raw_bytes

ROUNDS = 6
SHAPES = st.sampled_from([(1,), (3,), (5, 2), (2, 3, 4), (127,), (0, 3)])
DTYPES = st.sampled_from([torch.float32, torch.bfloat16, torch.int64])


def different(name: str, a: torch.Tensor, b: torch.Tensor) -> list[str]:
    same = a.shape == b.shape and a.dtype == b.dtype and torch.equal(raw_bytes(a), raw_bytes(b))
    return [] if same else [f"{name}: {a.tolist()} and {b.tolist()}"]


def relations(
    world: Coordinator, drawn: tuple[tuple[int, ...], torch.dtype, int, int], mode: str
) -> list[str]:
    """Return which results of this rank differ, although they are two ways to the same."""
    shape, dtype, values, cut = drawn
    rank, size = world.rank_in_group, world.world_size
    other = coordinator([list(range(size))[::-1]])
    rows = (shape[0] * size, *shape[1:])
    addend = exact_sum_input(rows, dtype, rank=rank, world_size=size, seed=values).to(world.device)
    moved = movement_input(rows, dtype, rank=rank, seed=values).to(world.device)

    def both(x: torch.Tensor) -> torch.Tensor:
        return world.all_gather(world.reduce_scatter(x, dim=0), dim=0)

    total = world.all_reduce(addend)
    found = different("all_gather of reduce_scatter, and all_reduce", both(addend), total)
    found += different(f"the same eager and in mode {mode}", compiled(both, mode)(addend), total)
    found += different("the sum in reverse order of ranks", other.all_reduce(addend), total)
    at = cut % (rows[0] + 1)
    halves = [world.all_reduce(part.contiguous()) for part in (addend[:at], addend[at:])]
    found += different("the sum in two messages", torch.cat(halves), total)
    gathered = world.all_gather(moved, dim=0)
    reverse = other.all_gather(moved, dim=0).reshape(size, *rows) if math.prod(rows) else None
    if reverse is not None:
        backwards = gathered.reshape(size, *rows).flip(0)
        found += different(
            "all_gather in reverse order of ranks", reverse.contiguous(), backwards.contiguous()
        )
    sent = world.broadcast(moved.clone(), src=size - 1)
    found += different("broadcast, and its part of all_gather", sent, gathered[(size - 1) * rows[0] :])
    # By now much has gone on in both groups.
    return found + different("the sum before and after", world.all_reduce(addend), total)


@pytest.mark.vdist_world_size(min=2, max=4, multiple_of=2)
@pytest.mark.vdist_requirement("VD-PRG-003")
def test_two_ways_to_one_result_agree(
    coordinator_run: CoordinatorRun, world_size: int, compile_mode: str
) -> None:
    """Sums and gathered data are the same in another order of ranks, in parts, compiled, and later on."""

    @seed(0)
    @settings(max_examples=ROUNDS, deadline=None, database=None)
    @given(st.tuples(SHAPES, DTYPES, st.integers(0, 99), st.integers(0, 9)))
    def hold(drawn: tuple[tuple[int, ...], torch.dtype, int, int]) -> None:
        found = coordinator_run(relations, drawn, compile_mode, world_size=world_size)
        assert found == [[]] * world_size

    hold()
