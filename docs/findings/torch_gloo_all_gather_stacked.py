"""Gloo's all_gather_into_tensor refuses a stacked output, which its documentation shows.

Class: undocumented limit

Declared as `all_gather_into_tensor:stacked` in the limits of the backend cpu; reduce_scatter_tensor is alike.

Run: torchrun --nproc-per-node=2 torch_gloo_all_gather_stacked.py
"""

import torch
import torch.distributed as dist

dist.init_process_group("gloo")
rank = dist.get_rank()
gather = getattr(dist, "all_gather_single", dist.all_gather_into_tensor)
try:
    gather(torch.zeros(2, 3), torch.ones(3))
except RuntimeError as error:
    print(f"rank {rank}: RuntimeError: {error}", flush=True)
dist.destroy_process_group()
