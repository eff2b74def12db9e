"""Connections between the ranks of a group: of all at once, or of two by their first message.

NCCL connects two ranks in their first message in a direction, for which each waits for the other, also in
isend. Messages in a batch use the communicator of the group, which all members make together, others one of
the two ranks alone: https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.batch_isend_irecv
"""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakSet

import torch
import torch.distributed as dist

from . import _compat

_connected: WeakSet[dist.ProcessGroup] = WeakSet()


def connect(group: dist.ProcessGroup, device: torch.device) -> None:
    """Let every two members exchange a number, where the device's backend connects them only then.

    All members call it. Their messages wait for nobody afterwards.
    """
    size = dist.get_world_size(group)
    if size == 1 or not _compat.connects_lazily(group, device):
        return
    numbers = torch.zeros(size, dtype=torch.int32, device=device)
    dist.all_to_all_single(torch.empty_like(numbers), numbers, group=group)
    _connected.add(group)


def start_message(
    operation: Callable[..., dist.Work | None], flat: torch.Tensor, peer: int, group: dist.ProcessGroup
) -> dist.Work | None:
    """Start `dist.isend` or `dist.irecv`, over the connections of the group where it has them.

    In another group only the two ranks may be in their calls, so they make what they need by themselves.
    """
    if group in _connected:
        return _compat.start_in_batch(operation, flat, peer, group)
    return operation(flat, peer, group=group)
