"""Gloo's all_to_all_single of rows that the ranks cannot share equally gives what lies in memory behind them.

Class: defect
Requirement: VD-PG-021

torch 2.15 refuses it: the script prints its error then.

Run: torchrun --nproc-per-node=2 torch_gloo_all_to_all_remainder.py
"""

import torch
import torch.distributed as dist

dist.init_process_group("gloo")
rank = dist.get_rank()
output = torch.zeros(3)
try:
    dist.all_to_all_single(output, torch.arange(3.0) + 100 * rank)
except RuntimeError as error:
    print(f"rank {rank}: refused: {error}", flush=True)
else:
    print(f"rank {rank}: {output.tolist()}, expected an error", flush=True)
dist.destroy_process_group()
