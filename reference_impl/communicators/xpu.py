"""Groups on Intel GPUs."""

from __future__ import annotations

from .base import DeviceCommunicatorBase


class XpuCommunicator(DeviceCommunicatorBase):
    """Collectives over the device group, for which torch picks XCCL."""
