"""Gloo's scatter of the columns of a matrix sends parts of rows.

Class: defect
Requirement: VD-PG-014

Run: torchrun --nproc-per-node=2 torch_gloo_scatter_columns.py
"""

import torch
import torch.distributed as dist

dist.init_process_group("gloo")
rank = dist.get_rank()
matrix = torch.arange(8.0).reshape(4, 2)
column = torch.zeros(4)
dist.scatter(column, list(matrix.unbind(dim=1)) if rank == 0 else None, src=0)
print(f"rank {rank}: {column.tolist()}, expected {matrix[:, rank].tolist()}", flush=True)
dist.destroy_process_group()
