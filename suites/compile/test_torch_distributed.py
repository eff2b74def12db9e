"""Collectives of torch.distributed in compiled functions, which the compiler turns into functional ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist

from pytest_vdist import DistributedRun, compiled, current_rank
from pytest_vdist.judge.computations import Computation, assert_computations

# The compiler imports parts of torch that torch itself has deprecated.
pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.vdist_world_size(min=2, max=2)]

Tensors = Any
# torch 2.13 renamed both, and warns of the old names.
all_gather: Any = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
reduce_scatter: Any = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


class TorchGroup:
    """The methods that work in place of a simulated group, by torch.distributed."""

    def __init__(self, group: dist.ProcessGroup | None) -> None:
        self.group = group
        self.rank = current_rank().rank
        self.world_size = dist.get_world_size()
        self.device = current_rank().device

    def all_reduce_(self, tensor: torch.Tensor) -> None:
        dist.all_reduce(tensor, group=self.group)

    def all_gather_(self, output: torch.Tensor, input_: torch.Tensor) -> None:
        all_gather(output, input_, group=self.group)

    def reduce_scatter_(self, output: torch.Tensor, input_: torch.Tensor) -> None:
        reduce_scatter(output, input_, group=self.group)

    def all_to_all_(self, output: torch.Tensor, input_: torch.Tensor) -> None:
        dist.all_to_all_single(output, input_, group=self.group)


def layers(g: Any, x: torch.Tensor, w: torch.Tensor) -> Tensors:
    z = x @ w
    g.all_reduce_(z)
    u = z @ w
    v = u @ w
    g.all_reduce_(v)
    return z, u, v


def residual(g: Any, x: torch.Tensor, w: torch.Tensor) -> Tensors:
    h = x @ w
    z = h.clone()
    g.all_reduce_(z)
    return h + z, torch.relu(-z), z


def argument(g: Any, x: torch.Tensor, w: torch.Tensor) -> Tensors:
    before = x @ w
    g.all_reduce_(x)
    return before, x @ w


def gathered(g: Any, x: torch.Tensor, w: torch.Tensor) -> Tensors:
    h = x @ w
    rows = h.new_empty(2 * h.shape[0], h.shape[1])
    g.all_gather_(rows, h)
    return rows, torch.relu(rows) @ w, h


def scattered(g: Any, x: torch.Tensor, w: torch.Tensor) -> Tensors:
    h = x @ w
    own = h.new_empty(h.shape[0] // 2, h.shape[1])
    g.reduce_scatter_(own, h)
    return own, own + 1, h @ w


def exchanged(g: Any, x: torch.Tensor, w: torch.Tensor) -> Tensors:
    h = x @ w
    theirs = torch.empty_like(h)
    g.all_to_all_(theirs, h)
    return theirs, theirs @ w, h


COMPUTATIONS = [
    Computation("two layers", layers),
    Computation("a residual", residual),
    Computation("an argument", argument),
    Computation("all_gather", gathered),
    Computation("reduce_scatter", scattered),
    Computation("all_to_all", exchanged),
    Computation("other sizes", layers, rows=(4, 6, 9), most_graphs=2),
]


@pytest.mark.vdist_requirement("VD-CMP-012")
@pytest.mark.parametrize("subgroup", [False, True], ids=["default", "subgroup"])
def test_collectives_in_place(
    distributed_run: DistributedRun, compile_mode: str, world_size: int, subgroup: bool
) -> None:
    """Collectives that write to an intermediate, an argument or an output of their own are right."""

    def run(function: Callable[..., Any], /, *args: Any, world_size: int) -> list[Any]:
        def body() -> Any:
            group = dist.new_group(list(range(world_size))) if subgroup else None
            return function(TorchGroup(group), *args)

        return distributed_run(body, world_size=world_size)

    assert_computations(run, COMPUTATIONS, compile_=compiled, mode=compile_mode, world_size=world_size)
