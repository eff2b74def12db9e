"""all_reduce of a column of a matrix changes the other columns, and the sums are wrong.

Run: VLLM_TARGET_DEVICE=cpu torchrun --nproc-per-node=2 vllm_all_reduce_column.py
"""

import os

import torch
from vllm.distributed import parallel_state as vllm_groups

rank = int(os.environ["RANK"])
vllm_groups.init_distributed_environment(2, rank, "env://", rank, "gloo")
group = vllm_groups.init_model_parallel_group([[0, 1]], rank, "gloo", group_name="finding")
matrix = torch.arange(8.0).reshape(4, 2) + 100 * rank
before, want = matrix[:, 1].clone(), 2 * torch.arange(8.0).reshape(4, 2)[:, 0] + 100
got = group.all_reduce(matrix[:, 0])
print(f"rank {rank}: {got.tolist()}, expected {want.tolist()}", flush=True)
print(f"rank {rank}: the other column: {matrix[:, 1].tolist()}, before {before.tolist()}", flush=True)
