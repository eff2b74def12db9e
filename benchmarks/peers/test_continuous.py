"""The benchmark's body, run by torch's MultiProcContinuousTest: processes live for a class."""

import torch
import torch.distributed as dist
from torch.testing._internal.common_distributed import MultiProcContinuousTest


class TestAllReduce(MultiProcContinuousTest):
    world_size = 2

    @classmethod
    def backend_str(cls):
        return "gloo"

    def _body(self):
        x = torch.full((1024,), float(dist.get_rank() + 1))
        dist.all_reduce(x)
        assert torch.all(x == 3.0)


for _n in range(50):
    setattr(TestAllReduce, f"test_{_n:03}", lambda self: self._body())
    getattr(TestAllReduce, f"test_{_n:03}").__name__ = f"test_{_n:03}"
