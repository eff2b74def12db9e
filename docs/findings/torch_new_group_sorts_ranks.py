"""new_group([1, 0]) is the group [0, 1]: ranks, and the parts of gathers, have another order than asked for.

Class: undocumented limit
Requirement: VD-GRP-004

Run: torchrun --nproc-per-node=2 torch_new_group_sorts_ranks.py
"""

import torch
import torch.distributed as dist

dist.init_process_group("gloo")
rank = dist.get_rank()
group = dist.new_group([1, 0])
parts = [torch.zeros(1, dtype=torch.int64) for _ in range(2)]
dist.all_gather(parts, torch.tensor([rank]), group=group)
print(
    f"global rank {rank} is rank {dist.get_rank(group)} of the group, expected {1 - rank}; "
    f"all_gather: {[int(part) for part in parts]}, expected [1, 0]",
    flush=True,
)
dist.destroy_process_group()
