"""NCCL's reduce_scatter_tensor of a transposed matrix puts wrong sums into wrong places, without an error.

Class: defect
Requirement: VD-PG-014

Run: torchrun --nproc-per-node=2 torch_nccl_reduce_scatter_transposed.py
"""

import os

import torch
import torch.distributed as dist

rank = int(os.environ["LOCAL_RANK"])
torch.cuda.set_device(rank)
dist.init_process_group("nccl", device_id=torch.device("cuda", rank))
matrix = (torch.arange(8.0, device="cuda").reshape(2, 4) + 100 * rank).t()
output = torch.zeros(2, 2, device="cuda")
want = (2 * torch.arange(8.0).reshape(2, 4).t() + 100)[2 * rank : 2 * rank + 2]
try:
    dist.reduce_scatter_tensor(output, matrix)
except (RuntimeError, ValueError) as error:
    print(f"rank {rank}: refused: {error}", flush=True)
else:
    print(f"rank {rank}: {output.tolist()}, expected {want.tolist()}", flush=True)
dist.destroy_process_group()
