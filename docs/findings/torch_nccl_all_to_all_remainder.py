"""NCCL's all_to_all_single of rows that the ranks cannot share equally leaves out the last ones.

Class: defect
Requirement: VD-PG-021

Of one row nothing is exchanged. Nothing says so: gloo of torch 2.15 refuses both.

Run: torchrun --nproc-per-node=2 torch_nccl_all_to_all_remainder.py
"""

import os

import torch
import torch.distributed as dist

rank = int(os.environ["LOCAL_RANK"])
torch.cuda.set_device(rank)
dist.init_process_group("nccl", device_id=torch.device("cuda", rank))
for rows in (5, 1):
    output = torch.full((rows,), -1.0, device="cuda")
    try:
        dist.all_to_all_single(output, torch.arange(rows, dtype=torch.float32, device="cuda") + 100 * rank)
    except (RuntimeError, ValueError) as error:
        print(f"rank {rank}: {rows} rows are refused: {error}", flush=True)
    else:
        print(f"rank {rank}: {rows} rows: {output.tolist()}, expected an error", flush=True)
dist.destroy_process_group()
