"""Gloo's broadcast into a column of a matrix changes the other columns.

Class: defect

Run: torchrun --nproc-per-node=2 torch_gloo_broadcast_column.py
"""

import torch
import torch.distributed as dist

dist.init_process_group("gloo")
rank = dist.get_rank()
matrix = torch.arange(8.0).reshape(4, 2) + 100 * rank
before = matrix.clone()
dist.broadcast(matrix[:, 0], src=0)
want = torch.arange(8.0).reshape(4, 2)[:, 0]
print(f"rank {rank}: {matrix[:, 0].tolist()}, expected {want.tolist()}", flush=True)
print(f"rank {rank}: the other column: {matrix[:, 1].tolist()}, before {before[:, 1].tolist()}", flush=True)
dist.destroy_process_group()
