"""Every operation of simccl, for tensors of any layout, against results computed from ranks and positions."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
import torch.distributed as dist

from pytest_vdist import DistributedRun, current_rank
from pytest_vdist.backends.simdev import BACKEND

from .operands import (
    GAP,
    LAYOUTS,
    WORLD,
    Layout,
    all_gather_single,
    connect,
    data,
    gaps_of,
    plain,
    reduce_scatter_single,
    transposed,
    untyped_dist,
    with_gaps,
)


def collectives(layout: Layout, shape: tuple[int, int]) -> dict[str, list[torch.Tensor]]:
    """Do every collective once with tensors of a layout, and return the tensors that it wrote to."""
    rank, size = dist.get_rank(), dist.get_world_size()
    rows, columns = shape

    def mine() -> torch.Tensor:
        return layout(data(rank, shape))

    def empty(count: int = 1) -> torch.Tensor:
        return layout(torch.full((rows * count, columns), -1.0))

    done: dict[str, list[torch.Tensor]] = {}
    done["all_reduce"] = [mine()]
    dist.all_reduce(done["all_reduce"][0])
    done["broadcast"] = [mine()]
    dist.broadcast(done["broadcast"][0], src=1)
    done["reduce"] = [mine()]
    dist.reduce(done["reduce"][0], dst=2)
    done["all_gather"] = [empty() for _ in range(size)]
    dist.all_gather(done["all_gather"], mine())
    done["all_gather_single"] = [empty(size)]
    all_gather_single(done["all_gather_single"][0], mine())
    done["gather"] = [empty() for _ in range(size)]
    dist.gather(mine(), done["gather"] if rank == 1 else None, dst=1)
    done["scatter"] = [empty()]
    parts = [layout(data(10 * rank + to, shape)) for to in range(size)]
    dist.scatter(done["scatter"][0], parts if rank == 2 else None, src=2)
    done["reduce_scatter"] = [empty()]
    dist.reduce_scatter(done["reduce_scatter"][0], parts)
    done["reduce_scatter_single"] = [empty()]
    reduce_scatter_single(done["reduce_scatter_single"][0], layout(torch.cat([p.cpu() for p in parts])))
    done["all_to_all"] = [empty() for _ in range(size)]
    dist.all_to_all(done["all_to_all"], parts)
    done["all_to_all_single"] = [empty(size)]
    dist.all_to_all_single(done["all_to_all_single"][0], layout(torch.cat([p.cpu() for p in parts])))
    return done


def expected_of_collectives(rank: int, shape: tuple[int, int]) -> dict[str, list[torch.Tensor]]:
    ranks = range(WORLD)
    own = [data(r, shape) for r in ranks]
    to_me = [data(10 * r + rank, shape) for r in ranks]
    total = torch.stack(own).sum(0)
    untouched = [torch.full(shape, -1.0)] * WORLD
    return {
        "all_reduce": [total],
        "broadcast": [own[1]],
        "reduce": [total if rank == 2 else own[rank]],
        "all_gather": own,
        "all_gather_single": [torch.cat(own)],
        "gather": own if rank == 1 else untouched,
        "scatter": [data(20 + rank, shape)],
        "reduce_scatter": [torch.stack(to_me).sum(0)],
        "reduce_scatter_single": [torch.stack(to_me).sum(0)],
        "all_to_all": to_me,
        "all_to_all_single": [torch.cat(to_me)],
    }


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("shape", [(4, 3), (1, 1), (0, 3)], ids=str)
def test_every_collective_is_right_for_tensors_of_any_layout(
    distributed_run: DistributedRun, name: str, shape: tuple[int, int]
) -> None:
    layout = LAYOUTS[name]

    def body() -> dict[str, Any]:
        done = collectives(layout, shape)
        gaps = [gaps_of(t) for written in done.values() for t in written] if layout is with_gaps else []
        return {"done": done, "gaps": gaps}

    for rank, result in enumerate(distributed_run(body)):
        expected = expected_of_collectives(rank, shape)
        for operation, tensors in result["done"].items():
            for position, tensor in enumerate(tensors):
                wanted = expected[operation][position]
                assert torch.equal(tensor, wanted), f"{operation} on rank {rank}, tensor {position}"
        assert all((gap == GAP).all() for gap in result["gaps"]), f"rank {rank} wrote between elements"


def test_operations_on_several_tensors_are_right_one_by_one(distributed_run: DistributedRun) -> None:
    def body() -> dict[str, list[torch.Tensor]]:
        rank, size = dist.get_rank(), dist.get_world_size()
        group = dist.group.WORLD
        device = current_rank().device
        reduced = [with_gaps(data(rank)), plain(data(rank + 1, (5, 1)))]
        with untyped_dist._coalescing_manager(group, device):
            for tensor in reduced:
                dist.all_reduce(tensor)
        gathered = [plain(torch.zeros(size * 4, 3)), plain(torch.zeros(size * 5, 1))]
        with untyped_dist._coalescing_manager(group, device, async_ops=True) as works:
            for output, given in zip(gathered, (data(rank), data(rank, (5, 1))), strict=True):
                all_gather_single(output, plain(given))
        works.wait()
        scattered = [plain(torch.zeros(1, 3)), plain(torch.zeros(2, 3))]
        with untyped_dist._coalescing_manager(group, device):
            for output, rows in zip(scattered, (4, 8), strict=True):
                reduce_scatter_single(output, plain(data(rank, (rows, 3))))
        received = plain(torch.zeros(4, 3))
        right, left = (rank + 1) % size, (rank - 1) % size
        messages = [dist.P2POp(dist.isend, plain(data(rank)), right), dist.P2POp(dist.irecv, received, left)]
        for work in dist.batch_isend_irecv(messages):
            work.wait()
        return {"reduced": reduced, "gathered": gathered, "scattered": scattered, "received": [received]}

    def total(shape: tuple[int, ...], offset: int = 0) -> torch.Tensor:
        return torch.stack([data(r + offset, shape) for r in range(WORLD)]).sum(0)

    for rank, done in enumerate(distributed_run(body)):
        expected = {
            "reduced": [total((4, 3)), total((5, 1), 1)],
            "gathered": [torch.cat([data(r, shape) for r in range(WORLD)]) for shape in ((4, 3), (5, 1))],
            "scattered": [total((4, 3)).chunk(WORLD)[rank], total((8, 3)).chunk(WORLD)[rank]],
            "received": [data((rank - 1) % WORLD)],
        }
        for operation, tensors in done.items():
            for tensor, wanted in zip(tensors, expected[operation], strict=True):
                assert torch.equal(tensor, wanted), f"{operation} on rank {rank}"


def test_every_declared_dtype_is_summed_and_moved(distributed_run: DistributedRun) -> None:
    def body() -> dict[str, torch.Tensor]:
        rank, size, done = dist.get_rank(), dist.get_world_size(), {}
        for name in BACKEND.reduction_dtypes:
            done[f"sum {name}"] = plain(data(rank, dtype=getattr(torch, name)))
            dist.all_reduce(done[f"sum {name}"])
        for name in (*BACKEND.movement_dtypes, "complex64"):
            given = plain(data(rank, dtype=getattr(torch, name)))
            moved = given.new_empty(4 * size, 3)
            all_gather_single(moved, given)
            dist.broadcast(given, src=3)
            done[f"gathered {name}"], done[f"broadcast {name}"] = moved, given
        done["any"], done["all"] = (plain(torch.tensor([rank == 1, True, rank < 9])) for _ in range(2))
        dist.all_reduce(done["any"])
        dist.all_reduce(done["all"], op=dist.ReduceOp.PRODUCT)
        done["average"] = plain(data(rank))
        dist.all_reduce(done["average"], op=dist.ReduceOp.AVG)
        return {key: value.view(torch.uint8).cpu() for key, value in done.items()}

    def as_bytes(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.contiguous().view(torch.uint8)

    for done in distributed_run(body):
        for name in BACKEND.reduction_dtypes:
            total = torch.stack([data(r) for r in range(WORLD)]).sum(0).to(getattr(torch, name))
            assert torch.equal(done[f"sum {name}"], as_bytes(total)), name
        for name in (*BACKEND.movement_dtypes, "complex64"):
            given = [data(r, dtype=getattr(torch, name)) for r in range(WORLD)]
            assert torch.equal(done[f"gathered {name}"], torch.cat([as_bytes(g) for g in given])), name
            assert torch.equal(done[f"broadcast {name}"], as_bytes(given[3])), name
        assert done["any"].tolist() == [1, 1, 1]
        assert done["all"].tolist() == [0, 1, 1]
        average = torch.stack([data(r) for r in range(WORLD)]).mean(0)
        assert torch.equal(done["average"], as_bytes(average))


def test_uneven_all_to_all_moves_the_rows_that_were_asked_for(distributed_run: DistributedRun) -> None:
    def rows_from(source: int, target: int) -> int:
        return (source + 2 * target) % 3

    def body() -> torch.Tensor:
        rank, ranks = dist.get_rank(), range(dist.get_world_size())
        sent, received = [rows_from(rank, to) for to in ranks], [rows_from(source, rank) for source in ranks]
        output = with_gaps(torch.full((sum(received), 2), -1.0))
        dist.all_to_all_single(output, with_gaps(data(rank, (sum(sent), 2))), received, sent)
        return output

    for rank, output in enumerate(distributed_run(body)):
        parts = []
        for source in range(WORLD):
            sizes = [rows_from(source, to) for to in range(WORLD)]
            parts.append(torch.split(data(source, (sum(sizes), 2)), sizes)[rank])
        assert torch.equal(output, torch.cat(parts))


def test_messages_are_received_by_source_tag_and_from_anybody(distributed_run: DistributedRun) -> None:
    def body() -> list[Any]:
        rank, device = dist.get_rank(), current_rank().device
        connect()
        if rank == 1:
            sends = [
                untyped_dist.isend(torch.full((3,), float(tag), device=device), 0, tag=tag) for tag in (5, 6)
            ]
            for send in sends:
                send.wait()
        if rank > 1:
            dist.send(torch.full((2,), rank, dtype=torch.int16, device=device), 0)
        if rank != 0:
            return []
        by_tag = [torch.zeros(3, device=device) for _ in range(2)]
        works = [untyped_dist.irecv(tensor, 1, tag=tag) for tensor, tag in zip(by_tag, (6, 5), strict=True)]
        for work in works:
            work.wait()
        from_anybody = []
        for _ in range(2):
            tensor = torch.zeros(2, dtype=torch.int16, device=device)
            from_anybody.append((dist.recv(tensor), tensor.tolist()))
        return [[tensor.tolist() for tensor in by_tag], sorted(from_anybody)]

    assert distributed_run(body)[0] == [[[6.0] * 3, [5.0] * 3], [(2, [2, 2]), (3, [3, 3])]]


def test_asynchronous_work_tells_when_its_results_are_there(distributed_run: DistributedRun) -> None:
    def body() -> dict[str, Any]:
        rank = dist.get_rank()
        tensor = transposed(data(rank))
        work = dist.all_reduce(tensor, async_op=True)
        from_future = work.get_future().wait()
        polled = transposed(data(rank))
        waited = dist.all_reduce(polled, async_op=True)
        deadline = time.monotonic() + 20
        while not waited.is_completed() and time.monotonic() < deadline:
            torch.zeros(1)
        return {
            "same": from_future[0].data_ptr() == tensor.data_ptr(),
            "device": str(from_future[0].device.type),
            "results": [tensor.clone(), polled.clone()],
            "completed": (work.is_completed(), waited.is_completed(), waited.is_success()),
        }

    total = torch.stack([data(r) for r in range(WORLD)]).sum(0)
    for seen in distributed_run(body):
        assert (seen["same"], seen["device"], seen["completed"]) == (True, "simdev", (True, True, True))
        assert all(torch.equal(result, total) for result in seen["results"])
