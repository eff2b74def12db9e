"""The other collectives in compiled functions: the values of a run without a compiler."""

# ruff: noqa: ARG005 - a body takes all tensors of its computation

from __future__ import annotations

from typing import Any

import pytest
import torch

from pytest_vdist import CoordinatorRun, compiled
from pytest_vdist.judge.computations import Computation, assert_computations

# torch warns of operators that alias their input; the values say what comes of it. It also warns of gather,
# which breaks graphs.
pytestmark = [
    pytest.mark.filterwarnings("default", "ignore:Dynamo does not know how to trace"),
    pytest.mark.vdist_world_size(min=2, max=2),
]

Tensors = Any
UNEVEN = [3, 1]


def sequence_parallel(g: Any, x: torch.Tensor, w: torch.Tensor) -> Tensors:
    """Scatter sums over rows, work on the own rows, and gather them again, twice."""
    for _ in range(2):
        own = torch.relu(g.reduce_scatter(x @ w, 0)).clamp(-2, 2)
        x = g.all_gather(own, 0)
    return x, own


def mixture_of_experts(g: Any, x: torch.Tensor, w: torch.Tensor) -> Tensors:
    """Bring every rank's rows to this rank's expert, and each sum of all experts back to its rank."""
    mine = x[: UNEVEN[g.rank_in_group]]
    rows = g.all_gatherv(mine, 0, UNEVEN)
    return g.reduce_scatterv(rows @ w, 0, UNEVEN), rows @ w


def broadcast_between_products(g: Any, x: torch.Tensor, w: torch.Tensor) -> Tensors:
    h = x @ w
    before = h @ w
    g.broadcast(h, 1)
    return before, h, h @ w


def gather_at_one_rank(g: Any, x: torch.Tensor, w: torch.Tensor) -> Tensors:
    h = x @ w
    return g.gather(h, 1, 0), h @ w


ALL_GATHER = [
    Computation("rows", lambda g, x, w: (h := x @ w, g.all_gather(h, 0), h @ w)),
    Computation("columns", lambda g, x, w: (h := x @ w, z := g.all_gather(h, -1), z.t() @ h)),
    Computation("a middle dimension", lambda g, x, w: g.all_gather((x @ w).view(2, 2, 8), 1)),
    Computation("a view", lambda g, x, w: (h := x @ w, g.all_gather(h[:, 1:4], 1), h)),
    Computation("an argument, with an epilogue", lambda g, x, w: torch.relu(g.all_gather(x, 0)) + 1),
    Computation("other sizes", lambda g, x, w: g.all_gather(x @ w, 0) @ w, rows=(4, 6, 9), most_graphs=2),
]
REDUCE_SCATTER = [
    Computation("rows", lambda g, x, w: (h := x @ w, g.reduce_scatter(h, 0), h @ w)),
    Computation("columns", lambda g, x, w: (h := x @ w, z := g.reduce_scatter(h, -1), z.t() @ h)),
    Computation("the last of three", lambda g, x, w: g.reduce_scatter((x @ w).view(2, 2, 8), 2)),
    Computation("a transposed view", lambda g, x, w: (h := x @ w, g.reduce_scatter(h.t(), 0), h)),
    Computation("an argument, with an epilogue", lambda g, x, w: (g.reduce_scatter(x, 1) + 1).sum(0)),
    Computation("sequence parallelism", sequence_parallel),
]
UNEVEN_PARTS = [
    Computation(
        "rows gathered", lambda g, x, w: g.all_gatherv((x @ w)[: UNEVEN[g.rank_in_group]], 0, UNEVEN)
    ),
    Computation("rows scattered", lambda g, x, w: (h := x @ w, g.reduce_scatterv(h, 0, UNEVEN), h @ w)),
    Computation("columns scattered", lambda g, x, w: g.reduce_scatterv(x @ w, 1, [3, 5]) + 1),
    Computation("a mixture of experts", mixture_of_experts),
]
BROADCAST = [
    Computation("an intermediate", broadcast_between_products),
    Computation("an argument", lambda g, x, w: (g.broadcast(x, 0) @ w, x * 2)),
]
GATHER = [
    Computation("an intermediate", gather_at_one_rank, fullgraph=False, most_graphs=12),
]


def run_all(run: CoordinatorRun, computations: list[Computation], mode: str, world_size: int) -> None:
    assert_computations(run, computations, compile_=compiled, mode=mode, world_size=world_size)


@pytest.mark.vdist_requirement("VD-CMP-004", "VD-CMP-002", "VD-CMP-003", "VD-CMP-007")
def test_all_gather(coordinator_run: CoordinatorRun, compile_mode: str, world_size: int) -> None:
    """Parts gathered along any dimension are right, and so is what is computed of them."""
    run_all(coordinator_run, ALL_GATHER, compile_mode, world_size)


@pytest.mark.vdist_requirement("VD-CMP-004", "VD-CMP-002", "VD-CMP-003", "VD-CMP-005", "VD-CMP-007")
def test_reduce_scatter(coordinator_run: CoordinatorRun, compile_mode: str, world_size: int) -> None:
    """Parts of sums along any dimension are right, alone and between gathers."""
    run_all(coordinator_run, REDUCE_SCATTER, compile_mode, world_size)


@pytest.mark.vdist_operations("all_gatherv", "reduce_scatterv")
@pytest.mark.vdist_requirement("VD-CMP-004", "VD-CMP-002", "VD-CMP-003", "VD-CMP-007")
def test_uneven_parts(coordinator_run: CoordinatorRun, compile_mode: str, world_size: int) -> None:
    """Parts whose sizes are given are gathered and scattered right, as experts need them."""
    run_all(coordinator_run, UNEVEN_PARTS, compile_mode, world_size)


@pytest.mark.vdist_requirement("VD-CMP-004", "VD-CMP-002", "VD-CMP-003", "VD-CMP-007")
def test_broadcast(coordinator_run: CoordinatorRun, compile_mode: str, world_size: int) -> None:
    """What was computed before a broadcast has the old values, what follows has those of the source."""
    run_all(coordinator_run, BROADCAST, compile_mode, world_size)


@pytest.mark.vdist_operations("gather")
@pytest.mark.vdist_requirement("VD-CMP-004", "VD-CMP-007")
def test_gather(coordinator_run: CoordinatorRun, compile_mode: str, world_size: int) -> None:
    """One rank has all parts, the others None, and the rest of the function is right on all of them."""
    run_all(coordinator_run, GATHER, compile_mode, world_size)
