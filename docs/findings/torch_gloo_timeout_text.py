"""The error of gloo's all_reduce that has timed out names neither the operation nor group and rank.

Class: disagreement with the specification
Requirement: VD-TMO-004

Run: torchrun --nproc-per-node=2 torch_gloo_timeout_text.py
"""

import os
import threading
from datetime import timedelta

import torch
import torch.distributed as dist

dist.init_process_group("gloo")
rank = dist.get_rank()
group = dist.new_group([0, 1], timeout=timedelta(seconds=3), group_desc="weights")
dist.all_reduce(torch.ones(1), group=group)
if rank == 0:
    try:
        dist.all_reduce(torch.ones(1), group=group)
    except RuntimeError as error:
        print(f"rank 0: RuntimeError: {str(error).rpartition('/')[2]}", flush=True)
else:
    threading.Event().wait(8)
os._exit(0)
