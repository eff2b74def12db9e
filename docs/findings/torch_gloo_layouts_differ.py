"""Gloo's all_reduce of equal shapes that lie differently in memory adds elements of different places.

Class: undocumented limit

No error tells that the ranks' tensors must lie alike in memory.

Run: torchrun --nproc-per-node=2 torch_gloo_layouts_differ.py
"""

import torch
import torch.distributed as dist

dist.init_process_group("gloo")
rank = dist.get_rank()
matrix = torch.arange(4.0).reshape(2, 2)
x = matrix.clone() if rank == 0 else matrix.t().contiguous().t()
dist.all_reduce(x)
print(f"rank {rank}: {x.tolist()}, expected {(2 * matrix).tolist()}", flush=True)
dist.destroy_process_group()
