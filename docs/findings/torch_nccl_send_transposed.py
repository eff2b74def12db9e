"""A transposed matrix that is sent over NCCL arrives with its elements permuted.

Class: disagreement with the specification
Requirement: VD-PG-014

torch warns once that source and destination are to lie alike in memory, and goes on; a broadcast of the same matrix
is refused.

Run: torchrun --nproc-per-node=2 torch_nccl_send_transposed.py
"""

import os

import torch
import torch.distributed as dist

rank = int(os.environ["LOCAL_RANK"])
torch.cuda.set_device(rank)
dist.init_process_group("nccl", device_id=torch.device("cuda", rank))
matrix = torch.arange(6.0, device="cuda").reshape(2, 3).t()
dist.all_reduce(torch.ones(1, device="cuda"))
try:
    dist.broadcast(matrix, 0)
    print(f"rank {rank}: broadcast: {matrix.tolist()}", flush=True)
except (RuntimeError, ValueError) as error:
    print(f"rank {rank}: broadcast is refused: {str(error).splitlines()[0]}", flush=True)
if rank == 0:
    dist.send(matrix, 1)
else:
    output = torch.zeros(3, 2, device="cuda")
    dist.recv(output, 0)
    print(f"rank 1: received {output.tolist()}, expected {matrix.tolist()}", flush=True)
torch.cuda.synchronize()
dist.destroy_process_group()
