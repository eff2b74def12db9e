"""The handle of gloo's reduce-scatter is never completed, and has no future.

Class: defect
Requirement: VD-PG-020

Other operations' handles are completed after wait(), and have futures.

Run: torchrun --nproc-per-node=2 torch_gloo_reduce_scatter_handle.py
"""

import torch
import torch.distributed as dist

dist.init_process_group("gloo")
rank = dist.get_rank()
output = torch.zeros(2)
work = dist.reduce_scatter(output, [torch.ones(2), torch.ones(2)], async_op=True)
work.wait()
print(
    f"rank {rank}: after wait() the sum is {output.tolist()}, is_completed() {work.is_completed()}",
    flush=True,
)
try:
    work.get_future()
except RuntimeError as error:
    print(f"rank {rank}: get_future() raised RuntimeError: {error}", flush=True)
dist.destroy_process_group()
