"""XpuCommunicator.broadcast takes a global rank and returns nothing, other than what it overrides.

Class: defect
Requirement: VD-BC-001
Source: vllm/distributed/device_communicators/xpu_communicator.py, XpuCommunicator.broadcast

The base class broadcasts from self.ranks[src] and returns the tensor. Run here with tensors on the CPU and
gloo; the lines are those for XPU. vLLM 0.33.0 itself does not call this method on XPU:
GroupCoordinator.broadcast goes to torch. Found by reading.

Run: VLLM_TARGET_DEVICE=cpu torchrun --nproc-per-node=4 vllm_xpu_broadcast.py
"""

import os

import torch
from vllm.distributed import parallel_state as vllm_groups
from vllm.distributed.device_communicators.base_device_communicator import DeviceCommunicatorBase
from vllm.distributed.device_communicators.xpu_communicator import XpuCommunicator

rank = int(os.environ["RANK"])
vllm_groups.init_distributed_environment(4, rank, "env://", rank, "gloo")
group = vllm_groups.init_model_parallel_group([[0, 1], [2, 3]], rank, "gloo", group_name="finding")
devices = [group.cpu_group, torch.device("cpu"), group.device_group]
for kind in (DeviceCommunicatorBase, XpuCommunicator):
    try:
        outcome = kind(*devices).broadcast(torch.tensor([rank]), src=0)
    except ValueError as error:
        outcome = f"ValueError: {str(error).split(' <')[0]}"
    print(f"rank {rank} of {group.ranks}: {kind.__name__}.broadcast(src=0) gives {outcome}", flush=True)
