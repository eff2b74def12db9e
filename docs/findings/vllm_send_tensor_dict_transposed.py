"""A transposed tensor in a sent dictionary is refused by the sender after the receiver was told to wait.

Class: defect
Requirement: VD-TD-005
Source: vllm/distributed/parallel_state.py, GroupCoordinator.isend_tensor_dict

The metadata is under way before torch.distributed.isend looks at the tensor. The sender can catch the
error; the receiver waits until the limit of its group.

Run: VLLM_TARGET_DEVICE=cpu torchrun --nproc-per-node=2 vllm_send_tensor_dict_transposed.py
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


x = torch.arange(6).reshape(2, 3).t()
call = (
    (lambda: group.send_tensor_dict({"x": x}, dst=1))
    if rank == 0
    else (lambda: group.recv_tensor_dict(src=0))
)
outcome = within_5_seconds(call)
print(f"rank {rank}: {outcome}", flush=True)
threading.Event().wait(6)  # rank 0 stays, so that the end of its process is not what rank 1 notices
os._exit(0)
