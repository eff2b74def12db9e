"""split_group of a default group that has made no call over NCCL yet ends the processes by SIGSEGV.

Class: defect
Requirement: VD-SPL-010

The default group has its device, as split_group asks for. After a call of the group it works.

Run: torchrun --nproc-per-node=2 torch_nccl_split_crash.py
"""

import os
import subprocess
import sys

import torch
import torch.distributed as dist

rank = int(os.environ["LOCAL_RANK"])


def split(backend: str, first: str) -> None:
    device = torch.device("cuda", rank)
    torch.cuda.set_device(device)
    dist.init_process_group(backend, device_id=device)
    x = torch.ones(1, device=device)
    if first == "all_reduce":
        dist.all_reduce(x)
    group = dist.split_group(split_ranks=[[0, 1]])
    dist.all_reduce(x, group=group)
    torch.cuda.synchronize()


if len(sys.argv) > 1:
    split(*sys.argv[1:])
    os._exit(0)
port = int(os.environ["MASTER_PORT"])
for number, (backend, first) in enumerate(
    (b, f) for b in ("nccl", "cpu:gloo,cuda:nccl") for f in ("nothing", "all_reduce")
):
    ended = subprocess.run(
        [sys.executable, __file__, backend, first],
        env=os.environ | {"MASTER_PORT": str(port + 1 + number), "TORCHELASTIC_USE_AGENT_STORE": "False"},
        capture_output=True,
        check=False,
        timeout=60,
    )
    print(f"rank {rank}: {backend}, {first} before: ended with {ended.returncode}", flush=True)
