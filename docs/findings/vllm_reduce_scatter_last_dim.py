"""reduce_scatter has wrong values, or the wrong shape, over any dimension from the third on.

Class: defect
Requirement: VD-RS-001, VD-RS-002
Source: vllm/distributed/device_communicators/base_device_communicator.py, DeviceCommunicatorBase.reduce_scatter

The first dimension is moved to `dim` where `dim` should be moved to the front: right for dimensions 0 and
1, wrong from 2 on. vLLM's own reduce_scatter_fake, which compilers are told, divides dimension `dim`. The
same line is in CudaCommunicator and XpuCommunicator, which were read and not run.

Run: VLLM_TARGET_DEVICE=cpu torchrun --nproc-per-node=2 vllm_reduce_scatter_last_dim.py
"""

import os

import torch
from vllm.distributed import parallel_state as vllm_groups

rank = int(os.environ["RANK"])
vllm_groups.init_distributed_environment(2, rank, "env://", rank, "gloo")
group = vllm_groups.init_model_parallel_group([[0, 1]], rank, "gloo", group_name="finding")
cube = torch.arange(8.0).reshape(2, 2, 2)
got = group.reduce_scatter(cube)  # dim=-1
want = (2 * cube).chunk(2, dim=-1)[rank]
print(f"rank {rank}: {got.tolist()}, expected {want.tolist()}", flush=True)
block = torch.arange(48.0).reshape(4, 2, 6)
fake = vllm_groups.reduce_scatter_fake(block, 2, 2, group.unique_name)
got = group.reduce_scatter(block, dim=2)
print(
    f"rank {rank}: shape {tuple(got.shape)}, expected {tuple(fake.shape)} as reduce_scatter_fake", flush=True
)
