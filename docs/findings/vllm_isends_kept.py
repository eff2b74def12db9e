"""isend_tensor_dict keeps CPU tensors whose handles nobody waits for long after they have arrived.

Class: defect
Requirement: VD-TD-016
Source: vllm/distributed/parallel_state.py, GroupCoordinator.isend_tensor_dict and _reap_completed_isends

The comment says "Reap completed sends before posting new ones, bounding the self-retention FIFO", and that
is_completed() of the tensors' handles is reliable. That of gloo's sends is False until somebody waits, so
that nothing is ever dropped.

Run: VLLM_TARGET_DEVICE=cpu torchrun --nproc-per-node=2 vllm_isends_kept.py
"""

import os

import torch
from vllm.distributed import parallel_state as vllm_groups

rank = int(os.environ["RANK"])
vllm_groups.init_distributed_environment(2, rank, "env://", rank, "gloo")
group = vllm_groups.init_model_parallel_group([[0, 1]], rank, "gloo", group_name="finding")
for _ in range(20):
    if rank == 0:
        group.isend_tensor_dict({"x": torch.ones(2)}, dst=1)
    else:
        group.recv_tensor_dict(src=0)
group.barrier()
if rank == 0:
    group.isend_tensor_dict({}, dst=1)  # reaps
    kept = sum(bool(tensors) for _, tensors in group._pending_isends)
    print(f"rank 0: 20 dictionaries have arrived, the tensors of {kept} are kept", flush=True)
else:
    group.recv_tensor_dict(src=0)
