"""A rank that does not exist is refused by new_group with an error that does not name it.

Class: disagreement with the specification
Requirement: VD-SPL-004

Run: torchrun --nproc-per-node=2 torch_new_group_unknown_rank.py
"""

import torch.distributed as dist

dist.init_process_group("gloo")
rank = dist.get_rank()
try:
    dist.new_group([0, 1, 42])
except ValueError as error:
    print(f"rank {rank}: ValueError: {error}", flush=True)
dist.barrier()
dist.destroy_process_group()
