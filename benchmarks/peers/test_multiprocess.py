"""The benchmark's body, run by torch's MultiProcessTestCase: processes are spawned for each test."""

import torch
import torch.distributed as dist
from torch.testing._internal.common_distributed import MultiProcessTestCase


class TestAllReduce(MultiProcessTestCase):
    @property
    def world_size(self):
        return 2

    def setUp(self):
        super().setUp()
        self._spawn_processes()

    def _body(self):
        store = dist.FileStore(self.file_name, self.world_size)
        dist.init_process_group("gloo", store=store, rank=self.rank, world_size=self.world_size)
        x = torch.full((1024,), float(dist.get_rank() + 1))
        dist.all_reduce(x)
        assert torch.all(x == 3.0)
        dist.destroy_process_group()

    def test_0(self):
        self._body()

    def test_1(self):
        self._body()

    def test_2(self):
        self._body()
