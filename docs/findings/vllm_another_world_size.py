"""A second init_distributed_environment with another world size is taken, and ignored.

Class: undocumented limit
Requirement: VD-INIT-006
Source: vllm/distributed/parallel_state.py, init_distributed_environment

The assertion "world group already initialized with a different world size" compares the world with torch's
default group, not with the argument.

Run: VLLM_TARGET_DEVICE=cpu torchrun --nproc-per-node=2 vllm_another_world_size.py
"""

import os

import torch
from vllm.distributed import parallel_state as vllm_groups

rank = int(os.environ["RANK"])
vllm_groups.init_distributed_environment(2, rank, "env://", rank, "gloo")
group = vllm_groups.init_model_parallel_group([[0, 1]], rank, "gloo", group_name="finding")
vllm_groups.init_distributed_environment(72, rank, "env://", rank, "gloo")
print(f"rank {rank}: 72 ranks asked for, {vllm_groups.get_world_group().world_size} there", flush=True)
