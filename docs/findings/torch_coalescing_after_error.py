"""After an error inside _coalescing_manager, as FSDP uses it, all_reduce returns and sums nothing.

Class: defect

The list of calls to make as one is kept when the block ends in an error, so that all later calls of the group
are put on it. The function is private; FSDP uses it. Found by reading.

Run: torchrun --nproc-per-node=2 torch_coalescing_after_error.py
"""

import torch
import torch.distributed as dist

dist.init_process_group("gloo")
rank = dist.get_rank()
try:
    with dist._coalescing_manager():
        raise KeyError("a mistake of the caller, which handles it")
except KeyError:
    pass
x = torch.ones(2)
dist.all_reduce(x)
print(f"rank {rank}: {x.tolist()}, expected [2.0, 2.0]", flush=True)
dist.destroy_process_group()
