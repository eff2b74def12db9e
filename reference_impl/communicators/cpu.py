"""Groups on the CPU."""

from __future__ import annotations

from .base import DeviceCommunicatorBase


class CpuCommunicator(DeviceCommunicatorBase):
    """Collectives over gloo, which sums the dtypes of the base class and no others."""
