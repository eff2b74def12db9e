"""broadcast checks the upper bound of its source alone: -1 is taken for the last rank.

Class: undocumented limit
Requirement: VD-ERR-001
Source: vllm/distributed/parallel_state.py, GroupCoordinator.broadcast

The assertion that refuses wrong sources checks the upper bound alone.

Run: VLLM_TARGET_DEVICE=cpu torchrun --nproc-per-node=2 vllm_broadcast_negative_src.py
"""

import os

import torch
from vllm.distributed import parallel_state as vllm_groups

rank = int(os.environ["RANK"])
vllm_groups.init_distributed_environment(2, rank, "env://", rank, "gloo")
group = vllm_groups.init_model_parallel_group([[0, 1]], rank, "gloo", group_name="finding")
got = group.broadcast(torch.tensor([rank]), src=-1)
print(f"rank {rank}: {got.tolist()}, expected an error", flush=True)
