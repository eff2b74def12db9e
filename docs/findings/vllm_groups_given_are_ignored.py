"""broadcast_object_list and broadcast_tensor_dict take a process group, and ignore it.

Class: defect
Requirement: VD-SPL-005, VD-TMO-001
Source: vllm/distributed/parallel_state.py, GroupCoordinator.broadcast_object_list and broadcast_tensor_dict

`group` (and `metadata_group`) are overwritten, or never read: whatever is given, the coordinator's own
groups do the work. broadcast_object_list uses the one of the device, so that the limit of CPU groups does
not end it, which is how a test came upon this.

Run: VLLM_TARGET_DEVICE=cpu torchrun --nproc-per-node=2 vllm_groups_given_are_ignored.py
"""

import os

import torch
from vllm.distributed import parallel_state as vllm_groups

rank = int(os.environ["RANK"])
vllm_groups.init_distributed_environment(2, rank, "env://", rank, "gloo")
group = vllm_groups.init_model_parallel_group([[0, 1]], rank, "gloo", group_name="finding")
objects = group.broadcast_object_list([f"object of rank {rank}"], src=0, group="no process group")
tensors = group.broadcast_tensor_dict({"rank": rank}, src=0, group="nor this", metadata_group="nor that")
print(f"rank {rank}: {objects}, {tensors}, expected errors", flush=True)
