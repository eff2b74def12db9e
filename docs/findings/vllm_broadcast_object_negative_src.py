"""broadcast_object with source -1 returns None everywhere, without an error: the object is lost.

Class: defect
Requirement: VD-ERR-001
Source: vllm/distributed/parallel_state.py, GroupCoordinator.broadcast_object

The assertion `src < self.world_size, Invalid src rank` is there to refuse such sources, and checks the
upper bound alone. No rank takes itself for -1, so that all receive, the last one from itself what it
received into: None.

Run: VLLM_TARGET_DEVICE=cpu torchrun --nproc-per-node=2 vllm_broadcast_object_negative_src.py
"""

import os
import threading

import torch
from vllm.distributed import parallel_state as vllm_groups

rank = int(os.environ["RANK"])
vllm_groups.init_distributed_environment(2, rank, "env://", rank, "gloo")
group = vllm_groups.init_model_parallel_group([[0, 1]], rank, "gloo", group_name="finding")


def within_5_seconds(call):
    """Return what became of the call, which is left behind if it does not end."""
    said = []

    def work():
        try:
            said.append(f"returned {call()!r}")
        except Exception as error:
            said.append(f"raised {type(error).__name__}: {str(error)[:90]}")

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(5)
    return said[0] if said else "has not returned after 5 s"


outcome = within_5_seconds(lambda: group.broadcast_object(f"object of rank {rank}", src=-1))
print(f"rank {rank}: {outcome}, expected an error", flush=True)
os._exit(0)
