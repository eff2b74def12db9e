"""NCCL's all_gather_into_tensor of channels-last tensors permutes their elements, without an error.

Class: defect
Requirement: VD-PG-014

Its check takes a channels-last tensor for contiguous. A transposed one is refused.

Run: torchrun --nproc-per-node=2 torch_nccl_all_gather_channels_last.py
"""

import os

import torch
import torch.distributed as dist

rank = int(os.environ["LOCAL_RANK"])
torch.cuda.set_device(rank)
dist.init_process_group("nccl", device_id=torch.device("cuda", rank))
image = torch.arange(8.0, device="cuda").reshape(1, 2, 2, 2) + 100 * rank
output = torch.zeros(2, 2, 2, 2, device="cuda")
for name, x in (
    ("channels-last", image.contiguous(memory_format=torch.channels_last)),
    ("contiguous", image),
):
    try:
        dist.all_gather_into_tensor(output, x)
        print(f"rank {rank}: {name}: {output[0].flatten().tolist()}", flush=True)
    except (RuntimeError, ValueError) as error:
        print(f"rank {rank}: {name} is refused: {error}", flush=True)
dist.destroy_process_group()
