"""A process group that was destroyed goes on: all_reduce and barrier work, as long as somebody refers to it.

Class: disagreement with the specification
Requirement: VD-GRP-010

Run: torchrun --nproc-per-node=2 torch_used_after_destroy.py
"""

import torch
import torch.distributed as dist

dist.init_process_group("gloo")
rank = dist.get_rank()
group = dist.new_group([0, 1])
dist.destroy_process_group(group)
x = torch.ones(2)
dist.all_reduce(x, group=group)
print(f"rank {rank}: all_reduce gave {x.tolist()}, expected an error", flush=True)
dist.barrier(group=group)
print(f"rank {rank}: barrier returned, expected an error", flush=True)
