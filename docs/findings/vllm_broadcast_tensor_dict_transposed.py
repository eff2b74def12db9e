"""A transposed tensor of a broadcast dictionary arrives with its elements permuted.

Class: defect
Requirement: VD-TD-005
Source: vllm/distributed/parallel_state.py, GroupCoordinator.broadcast_tensor_dict

The tensor is handed to torch.distributed.broadcast as it lies, and the receiver's is contiguous; gloo sends
the elements in the order of memory. No error on any rank.

Run: VLLM_TARGET_DEVICE=cpu torchrun --nproc-per-node=2 vllm_broadcast_tensor_dict_transposed.py
"""

import os

import torch
from vllm.distributed import parallel_state as vllm_groups

rank = int(os.environ["RANK"])
vllm_groups.init_distributed_environment(2, rank, "env://", rank, "gloo")
group = vllm_groups.init_model_parallel_group([[0, 1]], rank, "gloo", group_name="finding")
x = torch.arange(6).reshape(2, 3).t()
got = group.broadcast_tensor_dict({"x": x} if rank == 0 else None, src=0)["x"]
print(f"rank {rank}: {got.tolist()}, expected {x.tolist()}", flush=True)
