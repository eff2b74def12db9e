"""all_reduce is documented as always out of place, and overwrites its input on the CPU.

Class: defect
Requirement: VD-AR-004, VD-AR-005
Source: vllm/distributed/parallel_state.py, GroupCoordinator.all_reduce; vllm/distributed/device_communicators/base_device_communicator.py, DeviceCommunicatorBase.all_reduce

The docstring says "So we always make the all-reduce operation out-of-place", and the method that does the
work is named _all_reduce_out_place. The communicators of the CPU and of the base class call
torch.distributed.all_reduce on the input and return it.

Run: VLLM_TARGET_DEVICE=cpu torchrun --nproc-per-node=2 vllm_all_reduce_overwrites_input.py
"""

import os

import torch
from vllm.distributed import parallel_state as vllm_groups

rank = int(os.environ["RANK"])
vllm_groups.init_distributed_environment(2, rank, "env://", rank, "gloo")
group = vllm_groups.init_model_parallel_group([[0, 1]], rank, "gloo", group_name="finding")
x = torch.tensor([1.0 + rank])
got = group.all_reduce(x)
print(
    f"rank {rank}: the input is now {x.tolist()}, it was {[1.0 + rank]}; same memory: {got is x}", flush=True
)
