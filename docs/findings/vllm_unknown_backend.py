"""A backend that torch does not know is replaced by gloo.

Class: disagreement with the specification
Requirement: VD-INIT-003
Source: vllm/distributed/parallel_state.py, init_distributed_environment

vLLM logs a warning, and goes on.

Run: VLLM_TARGET_DEVICE=cpu torchrun --nproc-per-node=2 vllm_unknown_backend.py
"""

import os

import torch
from vllm.distributed import parallel_state as vllm_groups

rank = int(os.environ["RANK"])
vllm_groups.init_distributed_environment(2, rank, "env://", rank, "no-such-backend")
print(f"rank {rank}: the default group has the backend {torch.distributed.get_backend()!r}", flush=True)
