"""reduce_scatter of a size that cannot be divided raises an error without a text.

Class: undocumented limit
Requirement: VD-ERR-008
Source: vllm/distributed/device_communicators/base_device_communicator.py, DeviceCommunicatorBase.reduce_scatter

`assert input_tensor.shape[0] % world_size == 0`, with nothing to tell which size or by what.

Run: VLLM_TARGET_DEVICE=cpu torchrun --nproc-per-node=2 vllm_reduce_scatter_indivisible.py
"""

import os

import torch
from vllm.distributed import parallel_state as vllm_groups

rank = int(os.environ["RANK"])
vllm_groups.init_distributed_environment(2, rank, "env://", rank, "gloo")
group = vllm_groups.init_model_parallel_group([[0, 1]], rank, "gloo", group_name="finding")
try:
    group.reduce_scatter(torch.ones(3), dim=0)
except AssertionError as error:
    print(f"rank {rank}: AssertionError, its text: {str(error)!r}", flush=True)
