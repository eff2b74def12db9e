"""In a group [1, 0], broadcast and gather disagree about who rank 0 is.

Class: defect
Requirement: VD-GRP-004
Source: vllm/distributed/parallel_state.py, GroupCoordinator.broadcast and gather; vllm/distributed/device_communicators/base_device_communicator.py, DeviceCommunicatorBase.gather

The same cause as of vllm_ranks_not_sorted.py: both methods say that their root is a rank within the group;
one counts by the coordinator's list, the other by the communicator's.

Run: VLLM_TARGET_DEVICE=cpu torchrun --nproc-per-node=2 vllm_ranks_not_sorted_gather.py
"""

import os

import torch
from vllm.distributed import parallel_state as vllm_groups

rank = int(os.environ["RANK"])
vllm_groups.init_distributed_environment(2, rank, "env://", rank, "gloo")
group = vllm_groups.init_model_parallel_group([[1, 0]], rank, "gloo", group_name="finding")
root = group.broadcast(torch.tensor([rank]), src=0)
gathered = group.gather(torch.tensor([rank]), dst=0, dim=0)
print(
    f"global rank {rank} is rank_in_group {group.rank_in_group}; broadcast(src=0) gave {root.tolist()}, "
    f"gather(dst=0) {None if gathered is None else gathered.tolist()}",
    flush=True,
)
