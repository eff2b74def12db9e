"""After an init_process_group that failed on one rank, the next one fails on all: they meet under two names.

Class: defect
Requirement: VD-TMO-008

Run: torchrun --nproc-per-node=2 torch_init_after_failed_init.py
"""

import os
import tempfile
from datetime import timedelta

import torch.distributed as dist

rank = int(os.environ["RANK"])
shared = f"{tempfile.gettempdir()}/torch_init_{os.environ['MASTER_PORT']}_{os.getppid()}"


def attempt(name, seconds):
    """Return what became of an initialisation at a file of that name."""
    try:
        dist.init_process_group(
            "gloo",
            init_method=f"file://{shared}_{name}",
            rank=rank,
            world_size=2,
            timeout=timedelta(seconds=seconds),
        )
    except Exception as error:
        return f"raised {type(error).__name__}"
    return "works"


if rank == 0:
    print(f"rank 0: alone, with a limit of 2 s: init_process_group {attempt('absent', 2)}", flush=True)
print(f"rank {rank}: both ranks: init_process_group {attempt('world', 10)}, expected: works", flush=True)
os._exit(0)
