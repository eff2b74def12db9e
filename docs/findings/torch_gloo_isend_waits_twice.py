"""A second wait() on gloo's isend does not return.

Class: disagreement with the specification

Run: torchrun --nproc-per-node=2 torch_gloo_isend_waits_twice.py
"""

import os
import threading

import torch
import torch.distributed as dist

dist.init_process_group("gloo")
rank = dist.get_rank()


def within_5_seconds(call):
    """Return what became of the call, which is left behind if it does not end."""
    said = []

    def work():
        try:
            said.append(f"returned {call()!r}")
        except Exception as error:
            said.append(f"raised {type(error).__name__}: {str(error)[:90]}")

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(5)
    return said[0] if said else "has not returned after 5 s"


x = torch.ones(2)
if rank == 0:
    work = dist.isend(x, dst=1)
    work.wait()
    print(f"rank 0: the second wait() {within_5_seconds(work.wait)}", flush=True)
else:
    dist.recv(x, src=0)
    threading.Event().wait(8)
os._exit(0)
