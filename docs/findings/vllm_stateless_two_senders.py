"""Of two objects that ranks of a StatelessProcessGroup send to a third, one arrives twice, the other never.

Class: defect
Requirement: VD-OBJ-004
Source: vllm/distributed/utils.py, StatelessProcessGroup.send_obj and recv_obj; send and recv alike

The key in the store names the destination and a number that each sender counts by itself, not the sender.
StatelessGroupCoordinator.send_object and send_tensor_dict, which move metadata by it, run on CUDA only and
were read, not run. Found by reading: the suites judge coordinators.

Run: VLLM_TARGET_DEVICE=cpu torchrun --nproc-per-node=3 vllm_stateless_two_senders.py
"""

import os

import torch
from vllm.distributed.utils import StatelessProcessGroup

rank = int(os.environ["RANK"])
groups = StatelessProcessGroup.create("127.0.0.1", int(os.environ["MASTER_PORT"]) + 1, rank, 3)
if rank > 0:
    groups.send_obj(f"from rank {rank}", dst=0)
groups.barrier()
if rank == 0:
    print(f"rank 0: recv_obj(1) gives {groups.recv_obj(1)!r}, recv_obj(2) {groups.recv_obj(2)!r}", flush=True)
groups.barrier()
