"""Gloo's all_reduce of a column of a matrix changes the other columns, and the sums are wrong.

Class: defect

Run: torchrun --nproc-per-node=2 torch_gloo_all_reduce_column.py
"""

import torch
import torch.distributed as dist

dist.init_process_group("gloo")
rank = dist.get_rank()
matrix = torch.arange(8.0).reshape(4, 2) + 100 * rank
before, want = matrix[:, 1].clone(), 2 * torch.arange(8.0).reshape(4, 2)[:, 0] + 100
dist.all_reduce(matrix[:, 0])
print(f"rank {rank}: {matrix[:, 0].tolist()}, expected {want.tolist()}", flush=True)
print(f"rank {rank}: the other column: {matrix[:, 1].tolist()}, before {before.tolist()}", flush=True)
dist.destroy_process_group()
