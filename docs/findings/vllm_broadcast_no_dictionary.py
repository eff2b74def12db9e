"""A source of broadcast_tensor_dict without a dictionary raises; the other ranks wait for it.

Class: undocumented limit
Requirement: VD-ERR-006
Source: vllm/distributed/parallel_state.py, GroupCoordinator.broadcast_tensor_dict

The assertion comes before the metadata, and nothing tells the others.

Run: VLLM_TARGET_DEVICE=cpu torchrun --nproc-per-node=2 vllm_broadcast_no_dictionary.py
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


outcome = within_5_seconds(lambda: group.broadcast_tensor_dict([1, 2] if rank == 0 else None, src=0))
print(f"rank {rank}: {outcome}", flush=True)
threading.Event().wait(6)  # rank 0 stays, so that the end of its process is not what rank 1 notices
os._exit(0)
