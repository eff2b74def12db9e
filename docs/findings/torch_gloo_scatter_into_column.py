"""Gloo's scatter into a column of a matrix writes to the other column.

Class: defect
Requirement: VD-PG-014

Run: torchrun --nproc-per-node=2 torch_gloo_scatter_into_column.py
"""

import torch
import torch.distributed as dist

dist.init_process_group("gloo")
rank = dist.get_rank()
parts = [torch.arange(4.0) + 100 * part for part in (1, 2)]
matrix = torch.zeros(4, 2)
dist.scatter(matrix[:, 0], parts if rank == 0 else None, src=0)
print(f"rank {rank}: {matrix[:, 0].tolist()}, expected {parts[rank].tolist()}", flush=True)
print(f"rank {rank}: the other column: {matrix[:, 1].tolist()}, before {[0.0] * 4}", flush=True)
dist.destroy_process_group()
