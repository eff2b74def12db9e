"""A rank that no group names gets an error without a text.

Class: undocumented limit
Requirement: VD-ERR-008
Source: vllm/distributed/parallel_state.py, GroupCoordinator.__init__

`assert self_cpu_group is not None`, with nothing to tell which rank or which lists.

Run: VLLM_TARGET_DEVICE=cpu torchrun --nproc-per-node=2 vllm_rank_in_no_group.py
"""

import os

import torch
from vllm.distributed import parallel_state as vllm_groups

rank = int(os.environ["RANK"])
vllm_groups.init_distributed_environment(2, rank, "env://", rank, "gloo")
group = vllm_groups.init_model_parallel_group([[0, 1]], rank, "gloo", group_name="finding")
try:
    vllm_groups.init_model_parallel_group([[0]], rank, "gloo", group_name="part")
except AssertionError as error:
    print(f"rank {rank}: AssertionError, its text: {str(error)!r}", flush=True)
