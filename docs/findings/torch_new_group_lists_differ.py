"""Ranks that pass different lists to new_group wait for each other, until the timeout.

Class: disagreement with the specification
Requirement: VD-SPL-003

Run: torchrun --nproc-per-node=2 torch_new_group_lists_differ.py
"""

import time
from datetime import timedelta

import torch.distributed as dist

dist.init_process_group("gloo")
rank = dist.get_rank()
begin = time.monotonic()
try:
    dist.new_group([0, 1] if rank == 0 else [1], timeout=timedelta(seconds=5))
    said = "returned a group"
except Exception as error:
    said = f"raised {type(error).__name__}"
print(f"rank {rank}: {said} after {time.monotonic() - begin:.0f} s, expected an error at once", flush=True)
dist.destroy_process_group()
