"""Groups on Intel GPUs."""

from __future__ import annotations

import torch

from ..wire import as_wire  # noqa: TID252
from .base import DeviceCommunicatorBase, concatenate


class XpuCommunicator(DeviceCommunicatorBase):
    """Collectives over the device group, for which torch picks XCCL.

    Nothing here depends on the device but `gather`, so all of it runs, and is tested, on the CPU and on the
    simulated accelerator. It has not run on XPU hardware. As in the base class `all_reduce` sums in a copy,
    whoever calls it: compiled code reaches it through an operator, where `torch.compiler.is_compiling()` is
    False, or is traced through it (https://github.com/vllm-project/vllm/pull/41808).
    """

    def gather(self, input_: torch.Tensor, dst: int = 0, dim: int = -1) -> torch.Tensor | None:
        """Return every rank's tensor, concatenated along `dim` in rank order, at `dst`; None elsewhere.

        XCCL's own gather has given wrong results (https://github.com/intel/torch-xpu-ops/issues/1903), so
        that this one gathers at all ranks, and takes the memory for it on all of them.
        """
        joined = self._members.all_gather(as_wire(input_))
        return concatenate(joined, input_, dim, self.world_size) if self.rank_in_group == dst else None
