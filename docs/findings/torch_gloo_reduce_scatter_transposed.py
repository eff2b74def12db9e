"""Gloo's reduce_scatter of transposed matrices puts wrong sums into wrong places.

Class: defect
Requirement: VD-PG-014

Run: torchrun --nproc-per-node=2 torch_gloo_reduce_scatter_transposed.py
"""

import torch
import torch.distributed as dist

dist.init_process_group("gloo")
rank = dist.get_rank()
parts = [torch.arange(6.0).reshape(3, 2).t() + 10 * rank for _ in range(2)]
output = torch.zeros(2, 3)
dist.reduce_scatter(output, parts)
want = 2 * torch.arange(6.0).reshape(3, 2).t() + 10
print(f"rank {rank}: {output.tolist()}, expected {want.tolist()}", flush=True)
dist.destroy_process_group()
