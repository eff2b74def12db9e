"""gather to destination -1 raises on the last rank alone; the other one waits.

Class: undocumented limit
Requirement: VD-ERR-001
Source: vllm/distributed/device_communicators/base_device_communicator.py, DeviceCommunicatorBase.gather; CpuCommunicator.gather alike

No rank takes itself for -1, and self.ranks[-1] is the last one.

Run: VLLM_TARGET_DEVICE=cpu torchrun --nproc-per-node=2 vllm_gather_negative_dst.py
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


outcome = within_5_seconds(lambda: group.gather(torch.ones(2), dst=-1))
print(f"rank {rank}: {outcome}", flush=True)
threading.Event().wait(6)
os._exit(0)
