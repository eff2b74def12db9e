"""A second wait() on a tensor's handle of isend_tensor_dict does not return.

Class: disagreement with the specification
Requirement: VD-TD-009
Source: vllm/distributed/parallel_state.py, GroupCoordinator.isend_tensor_dict

The first handle, of the metadata, is one of vLLM's own whose wait is idempotent, because gloo's is not, as
its docstring says; those of the tensors are gloo's.

Run: VLLM_TARGET_DEVICE=cpu torchrun --nproc-per-node=2 vllm_isend_handle_waits_twice.py
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


if rank == 0:
    handle = group.isend_tensor_dict({"x": torch.ones(2)}, dst=1)[-1]
    handle.wait()
    print(f"rank 0: the second wait() {within_5_seconds(handle.wait)}", flush=True)
else:
    group.recv_tensor_dict(src=0)
    threading.Event().wait(8)
os._exit(0)
