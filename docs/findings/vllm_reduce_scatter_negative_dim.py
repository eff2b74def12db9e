"""reduce_scatter over the last dimension of a cube has the right shape and wrong values.

Run: VLLM_TARGET_DEVICE=cpu torchrun --nproc-per-node=2 vllm_reduce_scatter_negative_dim.py
"""

import os

import torch
from vllm.distributed import parallel_state as vllm_groups

rank = int(os.environ["RANK"])
vllm_groups.init_distributed_environment(2, rank, "env://", rank, "gloo")
group = vllm_groups.init_model_parallel_group([[0, 1]], rank, "gloo", group_name="finding")
x = torch.arange(8.0).reshape(2, 2, 2)
got = group.reduce_scatter(x)  # dim=-1
want = (2 * x).chunk(2, dim=-1)[rank]
print(f"rank {rank}: {got.tolist()}, expected {want.tolist()}", flush=True)
