"""all_to_all of fewer tensors than ranks over NCCL: one rank goes on, the other waits within the call.

Class: undocumented limit
Requirement: VD-PG-019

Its lists are to have one tensor for each rank; nothing looks.

Run: torchrun --nproc-per-node=2 torch_nccl_all_to_all_too_few.py
"""

import os
import threading

import torch
import torch.distributed as dist

rank = int(os.environ["LOCAL_RANK"])
torch.cuda.set_device(rank)
dist.init_process_group("nccl", device_id=torch.device("cuda", rank))
dist.all_reduce(torch.ones(1, device="cuda"))
torch.cuda.synchronize()


def give_up() -> None:
    print(f"rank {rank}: has not returned after 10 s", flush=True)
    os._exit(0)


limit = threading.Timer(10, give_up)
limit.start()
try:
    dist.all_to_all([torch.zeros(1, device="cuda")], [torch.ones(1, device="cuda")])
except (RuntimeError, ValueError) as error:
    print(f"rank {rank}: refused: {error}", flush=True)
else:
    torch.cuda.synchronize()
    print(f"rank {rank}: returned, expected an error", flush=True)
limit.cancel()
threading.Event().wait(12)
os._exit(0)
