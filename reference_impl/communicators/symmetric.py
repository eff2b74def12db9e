"""Sums of small tensors in symmetric memory: every GPU of the group has mapped that of the others."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from .. import _compat  # noqa: TID252
from ..ordered_group import OrderedGroup  # noqa: TID252
from ..wire import compact  # noqa: TID252

LARGEST = 1 << 20
"""Bytes. Up to here it took less time than NCCL on two H200; each rank reads the tensors of all others."""
DTYPES = frozenset({torch.float32, torch.bfloat16})
_STEP = 16  # bytes that a GPU loads at once
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class SymmetricSums:
    """Sums over one group, by a kernel that reads the tensors of all ranks.

    Before each sum the GPUs meet for at most `timeout`. Then the kernel traps, and this process can use its
    device no more; NCCL's watchdog, which sees that, ends it.
    """

    def __init__(self, memory: _compat.SymmetricMemory, timeout: timedelta) -> None:
        self._memory = memory
        self._milliseconds = max(1, round(timeout.total_seconds() * 1000))
        self._stream: torch.cuda.Stream | None = None

    @staticmethod
    def takes(tensor: torch.Tensor) -> bool:
        """Tell, from what is the same on all ranks, whether a tensor is summed here."""
        size = tensor.numel() * tensor.element_size()
        return (
            tensor.dtype in DTYPES
            and 0 < size <= LARGEST
            and size % _STEP == 0
            and not (tensor.is_cuda and torch.cuda.is_current_stream_capturing())
        )

    def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the sum over the group, in a fresh tensor."""
        own = compact(tensor)
        if own.data_ptr() % _STEP:
            own = own.clone()  # a view may begin where a GPU cannot load that much at once
        stream = torch.cuda.current_stream()
        if self._stream not in {None, stream}:
            stream.wait_stream(self._stream)  # what reads the memory there comes before what is written here
        self._stream = stream
        self._memory.meet(self._milliseconds)
        return self._memory.sum_of(own.view(-1)).view(own.shape)


def connect(cpu: OrderedGroup, device: torch.device, group: dist.ProcessGroup) -> SymmetricSums | str:
    """Map the memory of all ranks of a group, or return why that cannot be, the same on all ranks.

    Every rank of the group calls it.
    """
    obstacle = _first(cpu.all_gather_object(_obstacle(device)))
    if obstacle is None and len(set(cpu.all_gather_object(_BOOT_ID.read_text()))) > 1:
        obstacle = "the ranks are on several machines"
    if obstacle is not None:
        return obstacle
    memory: _compat.SymmetricMemory | None = None
    try:
        memory = _compat.SymmetricMemory(LARGEST, device, group)
    except RuntimeError as error:
        obstacle = f"torch cannot map it: {error}"
    obstacle = _first(cpu.all_gather_object(obstacle))
    if memory is None or obstacle is not None:
        return str(obstacle)
    return SymmetricSums(memory, timedelta(seconds=_compat.timeout_of(group, device)))


def _obstacle(device: torch.device) -> str | None:
    if device.type != "cuda":
        return f"it is for CUDA devices, and this rank's is {device}"
    if not _compat.has_symmetric_memory():
        return f"torch {torch.__version__} has no one_shot_all_reduce_copy"
    return None


def _first(obstacles: Sequence[str | None]) -> str | None:
    found = (f"rank {rank}: {each}" for rank, each in enumerate(obstacles) if each is not None)
    return next(found, None)
