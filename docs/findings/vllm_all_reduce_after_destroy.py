"""After destroy() the communicator is still there, and all_reduce goes on over the destroyed group.

Class: disagreement with the specification
Requirement: VD-GRP-010
Source: vllm/distributed/parallel_state.py, GroupCoordinator.destroy

The coordinator's two groups are deleted; the communicator keeps its own references.

Run: VLLM_TARGET_DEVICE=cpu torchrun --nproc-per-node=2 vllm_all_reduce_after_destroy.py
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


group.destroy()
outcome = within_5_seconds(lambda: group.all_reduce(torch.ones(1)))
print(f"rank {rank}: {outcome}, expected an error", flush=True)
os._exit(0)
