"""Gloo's all_gather refuses tensors of different sizes, which its documentation says are supported.

Class: undocumented limit

Declared as `all_gather:unequal` in the limits of the backend cpu.

Run: torchrun --nproc-per-node=2 torch_gloo_all_gather_unequal.py
"""

import torch
import torch.distributed as dist

dist.init_process_group("gloo")
rank = dist.get_rank()

try:
    dist.all_gather([torch.zeros(1), torch.zeros(2)], torch.ones(rank + 1))
except RuntimeError as error:
    print(f"rank {rank}: RuntimeError: {error}", flush=True)
dist.destroy_process_group()
