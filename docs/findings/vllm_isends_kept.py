"""isend_tensor_dict keeps every dictionary whose handles are dropped, also long after it has arrived.

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
    print(f"rank 0: 20 dictionaries have arrived, {len(group._pending_isends)} are kept", flush=True)
