"""Groups on CUDA and ROCm devices."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist

from .. import envs  # noqa: TID252
from ..ordered_group import OrderedGroup  # noqa: TID252
from .base import DeviceCommunicatorBase
from .symmetric import SymmetricSums, connect


class CudaCommunicator(DeviceCommunicatorBase):
    """Collectives over the device group, for which torch picks NCCL (RCCL on ROCm).

    With VDIST_SYMMETRIC_MEMORY=1 small tensors are summed in symmetric memory. `symmetric_memory_obstacle`
    says, on all ranks alike, why they are not, and is None where they are.
    """

    def __init__(
        self,
        cpu_group: dist.ProcessGroup,
        device: torch.device | None = None,
        device_group: dist.ProcessGroup | None = None,
        unique_name: str = "",
        global_ranks: Sequence[int] | None = None,
    ) -> None:
        """Take the groups of a coordinator. Every rank of the group calls it, as they may have to connect."""
        super().__init__(cpu_group, device, device_group, unique_name, global_ranks)
        self.symmetric_memory_obstacle: str | None = "VDIST_SYMMETRIC_MEMORY is not 1"
        self._symmetric: SymmetricSums | None = None
        if self.world_size > 1 and envs.symmetric_memory_is_wanted():
            connected = connect(OrderedGroup(self.cpu_group, self.ranks), self.device, self.device_group)
            if isinstance(connected, str):
                self.symmetric_memory_obstacle = connected
            else:
                self.symmetric_memory_obstacle, self._symmetric = None, connected

    def all_reduce(self, input_: torch.Tensor) -> torch.Tensor:
        """Return the sum over the group; `input_` keeps its values."""
        if self._symmetric is not None and self._symmetric.takes(input_):
            return self._symmetric.all_reduce(input_)
        return super().all_reduce(input_)

    def destroy(self) -> None:
        """Let go of the process groups and of the memory."""
        self._symmetric = None
        super().destroy()
