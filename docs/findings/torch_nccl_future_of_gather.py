"""The future of gather's handle over NCCL raises on ranks that get nothing, and scatter's on all but the source.

Class: defect
Requirement: VD-PG-020

The calls themselves are right, and so is wait() of the handles.

Run: torchrun --nproc-per-node=2 torch_nccl_future_of_gather.py
"""

import os

import torch
import torch.distributed as dist

rank = int(os.environ["LOCAL_RANK"])
torch.cuda.set_device(rank)
dist.init_process_group("nccl", device_id=torch.device("cuda", rank))
x = torch.ones(1, device="cuda") + rank
parts = [torch.zeros(1, device="cuda") for _ in range(2)] if rank == 0 else None
for name, work in (
    ("gather", dist.gather(x, parts, 0, async_op=True)),
    ("scatter", dist.scatter(x, parts, 0, async_op=True)),
):
    work.wait()
    try:
        value = work.get_future().wait()
    except (RuntimeError, NotImplementedError) as error:
        print(f"rank {rank}: the future of {name}: {type(error).__name__}: {error}", flush=True)
    else:
        print(f"rank {rank}: the future of {name}: {[part.tolist() for part in value]}", flush=True)
dist.destroy_process_group()
