"""Gloo's reduce of a column of a matrix changes the other columns, on all ranks, and the sums are wrong.

Class: defect
Requirement: VD-PG-014

Run: torchrun --nproc-per-node=2 torch_gloo_reduce_column.py
"""

import torch
import torch.distributed as dist

dist.init_process_group("gloo")
rank = dist.get_rank()
matrix = torch.arange(8.0).reshape(4, 2) + 100 * rank
before = matrix.clone()
dist.reduce(matrix[:, 0], dst=0)
if rank == 0:
    want = 2 * before[:, 0] + 100
    print(f"rank 0: {matrix[:, 0].tolist()}, expected {want.tolist()}", flush=True)
print(f"rank {rank}: the other column: {matrix[:, 1].tolist()}, before {before[:, 1].tolist()}", flush=True)
dist.destroy_process_group()
