"""all_reduce of a StatelessProcessGroup returns rank 0's tensor for any operation but four.

Class: defect
Requirement: VD-ERR-010
Source: vllm/distributed/utils.py, StatelessProcessGroup.all_reduce

The loop knows SUM, PRODUCT, MAX and MIN; for AVG or BAND it adds nothing to the first tensor and returns
that, without an error. Found by reading: the suites judge coordinators.

Run: VLLM_TARGET_DEVICE=cpu torchrun --nproc-per-node=2 vllm_stateless_average.py
"""

import os

import torch
from vllm.distributed.utils import StatelessProcessGroup

rank = int(os.environ["RANK"])
groups = StatelessProcessGroup.create("127.0.0.1", int(os.environ["MASTER_PORT"]) + 1, rank, 2)
got = groups.all_reduce(torch.tensor([10.0 * (rank + 1)]), op=torch.distributed.ReduceOp.AVG)
print(f"rank {rank}: the average of 10 and 20 is {got.tolist()}, expected [15.0] or an error", flush=True)
groups.barrier()
