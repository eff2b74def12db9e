"""What a rank reports of each call of a program: plain values, quick to send."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from pytest_vdist.judge.formats import dtype_name, raw_bytes


class SeenTensor(NamedTuple):
    """A tensor as its bits, in index order."""

    dtype: str
    shape: tuple[int, ...]
    device_type: str
    data: bytes

    def tensor(self) -> torch.Tensor:
        """Return it as a contiguous CPU tensor."""
        dtype = getattr(torch, self.dtype)
        if not self.data:
            return torch.empty(self.shape, dtype=dtype)
        return torch.frombuffer(bytearray(self.data), dtype=dtype).reshape(self.shape)


class SeenError(NamedTuple):
    """An exception that a call raised."""

    type_name: str
    message: str


class SeenValue(NamedTuple):
    """A Python value, None too; dictionaries and lists hold tensors as `SeenTensor`."""

    value: Any


Seen = SeenTensor | SeenError | SeenValue | None
"""What one rank got from one call; None where it had no part in it."""


@dataclass(frozen=True)
class Report:
    """What one rank saw of a program: one entry for each call, and what was wrong with memory at the end.

    `damage` names calls whose result or input was changed later, or around which memory was written.
    """

    seen: tuple[Seen, ...]
    damage: tuple[str, ...]
    device_type: str


def seen_tensor(tensor: torch.Tensor) -> SeenTensor:
    """Take down a tensor's bits, dtype, shape and device."""
    data = raw_bytes(tensor).numpy().tobytes()
    return SeenTensor(dtype_name(tensor.dtype), tuple(tensor.shape), tensor.device.type, data)


def seen_value(value: Any) -> SeenTensor | SeenValue:
    """Take down what a call returned."""
    return seen_tensor(value) if isinstance(value, torch.Tensor) else SeenValue(_plain(value))


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return seen_tensor(value)
    if type(value) is dict:
        return {key: _plain(each) for key, each in value.items()}
    if type(value) is list:
        return [_plain(each) for each in value]
    return value
