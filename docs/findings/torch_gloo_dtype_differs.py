"""Gloo's all_gather of float32 on one rank and int32 on the other reads bytes as what they are not.

Class: undocumented limit

Run: torchrun --nproc-per-node=2 torch_gloo_dtype_differs.py
"""

import torch
import torch.distributed as dist

dist.init_process_group("gloo")
rank = dist.get_rank()
x = torch.tensor([1], dtype=torch.float32 if rank == 0 else torch.int32)
parts = [torch.zeros_like(x) for _ in range(2)]
dist.all_gather(parts, x)
print(f"rank {rank}: {[part.tolist() for part in parts]}, expected an error", flush=True)
dist.destroy_process_group()
