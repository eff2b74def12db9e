"""A dictionary sent with all_gather_group by the sender alone arrives half uninitialised, without an error.

Run: VLLM_TARGET_DEVICE=cpu torchrun --nproc-per-node=2 vllm_all_gather_group_differs.py
"""

import os

import torch
from vllm.distributed import parallel_state as vllm_groups

rank = int(os.environ["RANK"])
vllm_groups.init_distributed_environment(2, rank, "env://", rank, "gloo")
group = vllm_groups.init_model_parallel_group([[0, 1]], rank, "gloo", group_name="finding")
x = torch.arange(1, 5)
if rank == 0:
    group.send_tensor_dict({"x": x}, dst=1, all_gather_group=group)
else:
    try:
        print(
            f"rank 1: {group.recv_tensor_dict(src=0)['x'].tolist()}, expected {x.tolist()} or an error",
            flush=True,
        )
    except Exception as error:
        print(f"rank 1: {type(error).__name__}: {str(error)[:90]}", flush=True)
