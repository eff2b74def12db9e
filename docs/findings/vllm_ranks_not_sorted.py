"""In a group [1, 0], rank_in_group follows the order given and all_gather the sorted one.

Class: defect
Requirement: VD-GRP-004
Source: vllm/distributed/parallel_state.py, GroupCoordinator.__init__; vllm/distributed/device_communicators/base_device_communicator.py, DeviceCommunicatorBase.__init__

The coordinator counts by the list that it was given, its communicator by the process group, whose ranks
torch has sorted. Nothing refuses such a list.

Run: VLLM_TARGET_DEVICE=cpu torchrun --nproc-per-node=2 vllm_ranks_not_sorted.py
"""

import os

import torch
from vllm.distributed import parallel_state as vllm_groups

rank = int(os.environ["RANK"])
vllm_groups.init_distributed_environment(2, rank, "env://", rank, "gloo")
group = vllm_groups.init_model_parallel_group([[1, 0]], rank, "gloo", group_name="finding")
got = group.all_gather(torch.tensor([group.rank_in_group]), dim=0)
print(
    f"global rank {rank} is rank_in_group {group.rank_in_group}; all_gather of these: {got.tolist()}",
    flush=True,
)
