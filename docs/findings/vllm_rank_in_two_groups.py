"""A rank that two groups name is not refused; it gets the last of them.

Class: undocumented limit
Requirement: VD-SPL-004
Source: vllm/distributed/parallel_state.py, GroupCoordinator.__init__

Where VLLM_DISTRIBUTED_USE_SPLIT_GROUP is set the loop ends at the first one instead (read, not run).

Run: VLLM_TARGET_DEVICE=cpu torchrun --nproc-per-node=2 vllm_rank_in_two_groups.py
"""

import os

import torch
from vllm.distributed import parallel_state as vllm_groups

rank = int(os.environ["RANK"])
vllm_groups.init_distributed_environment(2, rank, "env://", rank, "gloo")
group = vllm_groups.init_model_parallel_group([[0, 1]], rank, "gloo", group_name="finding")
both = vllm_groups.init_model_parallel_group([[0, 1], [1]], rank, "gloo", group_name="both")
print(f"rank {rank}: its group is {both.ranks}, expected an error", flush=True)
