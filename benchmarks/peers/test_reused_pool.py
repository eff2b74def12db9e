"""The benchmark's body, run by spawned processes that a pool keeps over tests, as DeepSpeed can do."""

import multiprocessing
import tempfile

import pytest
import torch
import torch.distributed as dist


def _init(folder, counter):
    with counter.get_lock():
        rank = counter.value
        counter.value += 1
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)


def _body(barrier_free):
    x = torch.full((1024,), float(dist.get_rank() + 1))
    dist.all_reduce(x)
    assert torch.all(x == 3.0)
    return barrier_free


@pytest.fixture(scope="module")
def pool():
    context = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory() as folder,
        context.Pool(2, _init, (folder, context.Value("i", 0))) as processes,
    ):
        yield processes


@pytest.mark.parametrize("n", range(50))
def test_all_reduce(pool, n):
    assert pool.map(_body, [n, n], chunksize=1) == [n, n]
