"""The benchmark's body, run by pytest-vdist."""

import pytest
import torch
import torch.distributed as dist


@pytest.mark.parametrize("n", range(200))
def test_all_reduce(distributed_run, n):
    def body():
        x = torch.full((1024,), float(dist.get_rank() + 1))
        dist.all_reduce(x)
        assert torch.all(x == 3.0)

    distributed_run(body, world_size=2)
