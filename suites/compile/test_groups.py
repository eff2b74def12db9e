"""Several groups, groups that are made again and groups that are destroyed, in compiled functions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pytest_vdist import (
    CompiledFunction,
    Coordinator,
    CoordinatorRun,
    DistributedRun,
    Implementation,
    ImplementationSpec,
    compiled,
    coordinator,
    init_settings,
)
from pytest_vdist.judge.computations import Computation, assert_computations

pytestmark = pytest.mark.filterwarnings("default")

Tensors = Any


def sums(everyone: Any, backwards: Any, alone: Any, x: torch.Tensor, w: torch.Tensor) -> Tensors:
    h = x @ w
    z = everyone.all_reduce(h)
    return z, alone.all_reduce(h) @ w, backwards.all_reduce(h @ w), alone.all_reduce(z)


def parts(everyone: Any, backwards: Any, x: torch.Tensor, w: torch.Tensor) -> Tensors:
    h = x @ w
    rows = backwards.all_gather(h, 0)
    return rows, everyone.all_gather(h, 0) @ w, backwards.reduce_scatter(rows @ w, 0), rows @ w


def tensor_and_data_parallel(tensor: Any, data: Any, x: torch.Tensor, w: torch.Tensor) -> Tensors:
    z = tensor.all_reduce(x @ w)
    y = data.all_gather(z, 0) @ w
    return z, y, tensor.reduce_scatter(data.all_reduce(y), 0)


OF_TWO = [
    Computation("sums", sums, layouts=([[0, 1]], [[1, 0]], [[0], [1]])),
    Computation("parts", parts, layouts=([[0, 1]], [[1, 0]])),
]
OF_FOUR = [
    Computation(
        "tensor and data parallelism", tensor_and_data_parallel, layouts=([[0, 1], [2, 3]], [[0, 2], [1, 3]])
    )
]


class Layer:
    """A layer of a model, which holds its group and may be given another one."""

    def __init__(self, group: Coordinator) -> None:
        self.group = group
        self.weight = torch.eye(4, device=group.device) * 2

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.group.all_reduce(x @ self.weight)


@pytest.mark.vdist_world_size(min=2, max=2)
@pytest.mark.vdist_requirement("VD-CMP-009", "VD-CMP-001", "VD-CMP-004")
def test_several_groups_of_the_same_ranks(
    coordinator_run: CoordinatorRun, compile_mode: str, world_size: int
) -> None:
    """Two groups of both ranks in different orders, and one of each rank alone, are not mixed up."""
    assert_computations(
        coordinator_run,
        OF_TWO,
        compile_=compiled,
        mode=compile_mode,
        world_size=world_size,
        make_group=coordinator,
    )


@pytest.mark.vdist_world_size(min=4, max=4)
@pytest.mark.vdist_requirement("VD-CMP-009", "VD-CMP-001", "VD-CMP-004")
def test_groups_of_two_kinds_of_parallelism(
    coordinator_run: CoordinatorRun, compile_mode: str, world_size: int
) -> None:
    """Ranks that are neighbours, and those that are not, each work among themselves in one function."""
    assert_computations(
        coordinator_run,
        OF_FOUR,
        compile_=compiled,
        mode=compile_mode,
        world_size=world_size,
        make_group=coordinator,
    )


@pytest.mark.vdist_world_size(max=2)
@pytest.mark.vdist_requirement("VD-CMP-010", "VD-CMP-011")
def test_groups_that_are_made_again(
    distributed_run: DistributedRun,
    implementation: ImplementationSpec,
    tmp_path: Path,
    compile_mode: str,
    world_size: int,
) -> None:
    """A destroyed group is refused by name; with one made again, and in a new world, sums are right."""

    def body(place: str) -> tuple[list[list[float]], str, str]:
        def made(world: Implementation) -> Coordinator:
            return world.coordinator([list(range(world_size))], name="tensor")

        def with_group(group: Coordinator) -> CompiledFunction[[torch.Tensor], torch.Tensor]:
            """Give the layer another group. A captured graph has its group inside, so another is captured.

            Nothing keeps captured graphs: NCCL waits for their end before it destroys a communicator.
            """
            layer.group = group
            return compiled(layer.__call__, compile_mode) if compile_mode == "cudagraph" else function

        world = implementation.load()
        world.init(init_settings(f"{place}/first"))
        layer = Layer(made(world))
        function = compiled(layer.__call__, compile_mode)
        x = torch.full((2, 4), layer.group.rank + 1.0, device=layer.group.device)
        results = [with_group(layer.group)(x)]
        destroyed = layer.group.unique_name
        layer.group.destroy()
        error = ""
        try:
            with_group(layer.group)(x)
        except Exception as raised:
            error = str(raised)
        results.append(with_group(made(world))(x))
        world.destroy()
        world = implementation.load()
        world.init(init_settings(f"{place}/second"))
        results.append(with_group(made(world))(x + 1))
        world.destroy()
        return [result[0].tolist() for result in results], destroyed, error

    by_rank = distributed_run(body, f"file://{tmp_path}", world_size=world_size, init_process_group=False)
    total = 2.0 * sum(range(1, world_size + 1))
    expected = [[total] * 4, [total] * 4, [total + 2 * world_size] * 4]
    for rank, (results, destroyed, error) in enumerate(by_rank):
        assert results == expected, f"rank {rank}: first group, group made again, group of the next world"
        assert destroyed in error, f"rank {rank} was not told the name of the destroyed group: {error!r}"
