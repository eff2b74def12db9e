"""all_reduce in compiled functions: the values of a run without a compiler, whatever is done around it."""

# ruff: noqa: ARG005 - a body takes all tensors of its computation
from __future__ import annotations

from typing import Any

import pytest
import torch

from pytest_vdist import CoordinatorRun, compiled
from pytest_vdist.judge.computations import Computation, assert_computations

# torch warns of operators that alias their input; the values say what comes of it.
pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.vdist_world_size(min=2, max=2)]

Tensors = Any


def two_layers(g: Any, x: torch.Tensor, w: torch.Tensor) -> Tensors:
    z = g.all_reduce(x @ w)
    u = z @ w
    return z, u, g.all_reduce(u @ w)


def loop(g: Any, x: torch.Tensor, w: torch.Tensor) -> Tensors:
    sums = []
    for _ in range(4):
        x = g.all_reduce(x @ w).clamp(-2, 2)
        sums.append(x)
    return tuple(sums)


def residual_chain(g: Any, x: torch.Tensor, w: torch.Tensor) -> Tensors:
    h = x + g.all_reduce(x @ w)
    return h, h + g.all_reduce(h @ w)


def rms_norm(x: torch.Tensor) -> torch.Tensor:
    """Normalise and round to steps of 1/4, as a model in low precision does, so that all sums stay exact."""
    return torch.round(x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) * 4)


def transformer_blocks(
    g: Any, x: torch.Tensor, gate: torch.Tensor, column: torch.Tensor, row: torch.Tensor
) -> Tensors:
    for _ in range(3):
        h = rms_norm(x)
        h = torch.relu(h @ gate) + h @ column
        x = x + g.all_reduce(h @ row)
    return x, rms_norm(x)


def branch_on_data(g: Any, x: torch.Tensor, w: torch.Tensor) -> Tensors:
    z = g.all_reduce(x @ w)
    if z.sum() > 0:
        return z, g.all_reduce(z @ w)
    return z, g.all_reduce(z @ -w)


# Matrix products and collectives alone: on the CPU nothing is compiled to C++, and inductor has little to do
# but to decide which memory is used again.
MATRICES = [
    Computation("a fresh intermediate", lambda g, x, w: g.all_reduce(x @ w)),
    Computation("a sum that is used again", lambda g, x, w: (z := g.all_reduce(x @ w), z @ w)),
    Computation("two layers", two_layers),
    Computation("an intermediate that is used again", lambda g, x, w: (h := x @ w, g.all_reduce(h), h @ w)),
    Computation(
        "the same tensor twice", lambda g, x, w: (h := x @ w, g.all_reduce(h), g.all_reduce(h), h @ w)
    ),
    Computation("the sum of a sum", lambda g, x, w: (z := g.all_reduce(x @ w), g.all_reduce(z), z @ w)),
]
ARGUMENTS_AND_VIEWS = [
    Computation("an argument", lambda g, x, w: (g.all_reduce(x), x @ w)),
    Computation("an argument and nothing else", lambda g, x, w: g.all_reduce(x)),
    Computation("a view of columns", lambda g, x, w: (h := x @ w, g.all_reduce(h[:, 2:6]), h @ w)),
    Computation("a view of rows of an argument", lambda g, x, w: (g.all_reduce(x[1:3]), x @ w)),
    Computation("a transposed view", lambda g, x, w: (h := x @ w, g.all_reduce(h.t()) @ x, h)),
    Computation("an expanded view", lambda g, x, w: (g.all_reduce(x[:1].expand(3, 8)), x @ w)),
]
EPILOGUES = [
    Computation("a pointwise epilogue", lambda g, x, w: (z := g.all_reduce(x * 2), torch.relu(-z), z + 1)),
    Computation("an input that is added to its sum", lambda g, x, w: (h := x * 2, h + g.all_reduce(h))),
    Computation("reductions", lambda g, x, w: (z := g.all_reduce(x @ w), z.sum(-1), z.amax(0))),
    Computation("a residual chain", residual_chain),
    Computation("a loop", loop),
]
LAYERS = [
    Computation("transformer blocks", transformer_blocks, shapes=((8, 16), (8, 16), (16, 8)), context=context)
    for context in ("", "no_grad", "inference_mode")
]
OTHER_SIZES = [
    Computation("two layers", two_layers, rows=(4, 6, 9, 5), most_graphs=2),
    Computation(
        "a pointwise epilogue", lambda g, x, w: g.all_reduce(x * 2) + 1, rows=(4, 6, 9), most_graphs=2
    ),
]
BROKEN_GRAPHS = [
    Computation(
        "a branch on data",
        branch_on_data,
        fullgraph=False,
        most_graphs=3,
        rows=(4, 4, 4, 4),
        capturable=False,
    )
]


def run_all(run: CoordinatorRun, computations: list[Computation], mode: str, world_size: int) -> None:
    assert_computations(run, computations, compile_=compiled, mode=mode, world_size=world_size)


@pytest.mark.vdist_requirement("VD-CMP-001", "VD-CMP-002", "VD-CMP-003", "VD-CMP-007")
def test_sums_between_matrix_products(
    coordinator_run: CoordinatorRun, compile_mode: str, world_size: int
) -> None:
    """Sums of intermediates are right, nothing is written over them, and their inputs keep their values."""
    run_all(coordinator_run, MATRICES, compile_mode, world_size)


@pytest.mark.vdist_requirement("VD-CMP-001", "VD-CMP-002", "VD-CMP-003", "VD-CMP-007")
def test_sums_of_arguments_and_views(
    coordinator_run: CoordinatorRun, compile_mode: str, world_size: int
) -> None:
    """Sums of arguments and of views are right, and neither argument nor viewed tensor is written to."""
    run_all(coordinator_run, ARGUMENTS_AND_VIEWS, compile_mode, world_size)


@pytest.mark.vdist_requirement("VD-CMP-001", "VD-CMP-002", "VD-CMP-003", "VD-CMP-007")
def test_sums_with_epilogues(coordinator_run: CoordinatorRun, compile_mode: str, world_size: int) -> None:
    """What a compiler fuses with a sum, before it or after it, changes neither the sum nor its input."""
    run_all(coordinator_run, EPILOGUES, compile_mode, world_size)


@pytest.mark.vdist_requirement("VD-CMP-005", "VD-CMP-007", "VD-CMP-008")
def test_layers_of_a_tensor_parallel_model(
    coordinator_run: CoordinatorRun, compile_mode: str, world_size: int
) -> None:
    """Column-parallel and row-parallel products with norms and residuals are right, with and without grad."""
    run_all(coordinator_run, LAYERS, compile_mode, world_size)


@pytest.mark.vdist_requirement("VD-CMP-006")
def test_inputs_of_other_sizes(coordinator_run: CoordinatorRun, compile_mode: str, world_size: int) -> None:
    """With another number of rows in each call the values are right, from two graphs at most."""
    run_all(coordinator_run, OTHER_SIZES, compile_mode, world_size)


@pytest.mark.vdist_requirement("VD-CMP-007")
def test_graphs_that_are_broken(coordinator_run: CoordinatorRun, compile_mode: str, world_size: int) -> None:
    """A branch on a sum breaks the graph; both sides of it sum right, and each is compiled once."""
    run_all(coordinator_run, [*BROKEN_GRAPHS, *OTHER_SIZES[:1]], compile_mode, world_size)
