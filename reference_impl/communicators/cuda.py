"""Groups on CUDA and ROCm devices."""

from __future__ import annotations

from .base import DeviceCommunicatorBase


class CudaCommunicator(DeviceCommunicatorBase):
    """Collectives over the device group, for which torch picks NCCL (RCCL on ROCm)."""
