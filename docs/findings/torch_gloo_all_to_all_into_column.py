"""Gloo's all_to_all_single into a column of a matrix writes to the other column.

Class: defect
Requirement: VD-PG-014

Run: torchrun --nproc-per-node=2 torch_gloo_all_to_all_into_column.py
"""

import torch
import torch.distributed as dist

dist.init_process_group("gloo")
rank = dist.get_rank()
matrix = torch.zeros(4, 2)
dist.all_to_all_single(matrix[:, 0], torch.arange(4.0) + 100 * rank)
want = [2.0 * rank, 2.0 * rank + 1, 2.0 * rank + 100, 2.0 * rank + 101]
print(f"rank {rank}: {matrix[:, 0].tolist()}, expected {want}", flush=True)
print(f"rank {rank}: the other column: {matrix[:, 1].tolist()}, before {[0.0] * 4}", flush=True)
dist.destroy_process_group()
