"""A group of one rank accepts a dimension that the tensor does not have.

Class: disagreement with the specification
Requirement: VD-ERR-002
Source: vllm/distributed/parallel_state.py, GroupCoordinator.all_gather

"Bypass the function if we are using only 1 GPU" comes before the check: a wrong call shows with the second
rank.

Run: VLLM_TARGET_DEVICE=cpu torchrun --nproc-per-node=2 vllm_one_rank_checks_nothing.py
"""

import os

import torch
from vllm.distributed import parallel_state as vllm_groups

rank = int(os.environ["RANK"])
vllm_groups.init_distributed_environment(2, rank, "env://", rank, "gloo")
group = vllm_groups.init_model_parallel_group([[0], [1]], rank, "gloo", group_name="finding")
x = torch.ones(2)
print(f"rank {rank}: {group.all_gather(x, dim=99).tolist()}, expected an error", flush=True)
