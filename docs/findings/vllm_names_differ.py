"""Where ranks have made different numbers of groups, the unique names of the next one differ between them.

Class: undocumented limit
Requirement: VD-GRP-008
Source: vllm/distributed/parallel_state.py, _get_unique_name

The counter outlives destroy_distributed_environment. Names are what CpuCommunicator calls its shared memory
by; it compares them, and goes without if they differ.

Run: VLLM_TARGET_DEVICE=cpu torchrun --nproc-per-node=2 vllm_names_differ.py
"""

import os

import torch
from vllm.distributed import parallel_state as vllm_groups

rank = int(os.environ["RANK"])
vllm_groups.init_distributed_environment(2, rank, "env://", rank, "gloo")
group = vllm_groups.init_model_parallel_group([[0, 1]], rank, "gloo", group_name="finding")
for _ in range(rank):
    vllm_groups._get_unique_name("finding")  # as every coordinator takes its name
again = vllm_groups.init_model_parallel_group([[0, 1]], rank, "gloo", group_name="finding")
print(f"rank {rank}: one group, by the name of {again.unique_name!r}", flush=True)
