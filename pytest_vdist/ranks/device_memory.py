"""Memory of the device that a function leaves behind in its rank: other ranks need it."""

from __future__ import annotations

import gc

import torch

_MOST_CACHED = 64 << 20  # bytes; to take a little again and again costs more than it is worth
_LEFT_BEHIND = 1 << 20  # bytes of tensors that live on, from which it is worth to look for cycles


class DeviceMemory:
    """What torch's allocator holds of one device, in this process."""

    def __init__(self, device: torch.device) -> None:
        """Look at the device, unless it is the CPU or one whose memory torch does not count."""
        self._device = device
        self._is_counted = device.type != "cpu" and _is_counted(device)
        self._before = self._held()[0] if self._is_counted else 0

    def give_back(self) -> None:
        """Free tensors that only reference cycles hold, and what the allocator caches beyond a little.

        Otherwise a warm rank, which may be idle for the rest of the session, would keep it.
        """
        if not self._is_counted:
            return
        allocated, reserved = self._held()
        if allocated > self._before + _LEFT_BEHIND:
            gc.collect()
            allocated, reserved = self._held()
        self._before = allocated
        if reserved > allocated + _MOST_CACHED:
            torch.accelerator.empty_cache()

    def _held(self) -> tuple[int, int]:
        """Return the bytes of tensors, and those that the allocator has taken from the device."""
        stats = torch.accelerator.memory_stats(self._device)
        allocated, reserved = (
            stats.get(f"{kind}_bytes.all.current", 0) for kind in ("allocated", "reserved")
        )
        return allocated, reserved


def _is_counted(device: torch.device) -> bool:
    """Tell whether torch knows the allocator of the device, as it need not of a vendor's."""
    try:
        torch.accelerator.memory_stats(device)
    except (NotImplementedError, RuntimeError, ValueError):
        return False
    return True
