"""The first isend to a rank over NCCL returns when that rank receives, and not before.

Class: undocumented limit

So two ranks that first send to each other, and receive then, wait for each other for ever. Later messages do not wait,
and neither does the first one if all ranks have exchanged something by all_to_all_single before.

Run: torchrun --nproc-per-node=2 torch_nccl_isend_waits.py
"""

import os
import time

import torch
import torch.distributed as dist

rank = int(os.environ["LOCAL_RANK"])
torch.cuda.set_device(rank)
dist.init_process_group("nccl", device_id=torch.device("cuda", rank))
x = torch.ones(2, device="cuda")
dist.all_reduce(x)
torch.cuda.synchronize()
for number in ("first", "second"):
    if rank == 0:
        start = time.monotonic()
        work = dist.isend(x, 1)
        print(f"rank 0: the {number} isend has returned after {time.monotonic() - start:.1f} s", flush=True)
        work.wait()
    else:
        time.sleep(3.0)
        print(f"rank 1: the {number} recv begins after 3 s", flush=True)
        dist.recv(x, 0)
    torch.cuda.synchronize()
    dist.barrier()
dist.destroy_process_group()
