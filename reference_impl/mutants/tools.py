"""Small wrong things that mutants of several operations do to tensors."""

from __future__ import annotations

import torch

from ..wire import compact, fresh  # noqa: TID252


def as_bytes(tensor: torch.Tensor) -> torch.Tensor:
    """View a contiguous tensor, of one element too, as its bytes."""
    return tensor.as_strided((tensor.numel(),), (1,)).view(torch.uint8)


def flip_bit(tensor: torch.Tensor, *, byte: int = 0) -> torch.Tensor:
    """Flip the lowest bit of one byte of a contiguous tensor, in place; an empty one stays."""
    if tensor.numel():
        as_bytes(tensor)[byte] ^= 1
    return tensor


def in_memory_order(tensor: torch.Tensor) -> torch.Tensor:
    """Read as many elements as `tensor` has from where it starts, whatever its strides are."""
    if tensor.is_contiguous() or 0 in tensor.stride():
        return tensor
    return tensor.as_strided(tensor.shape, torch.empty(tensor.shape, device="meta").stride())


def without_tail(tensor: torch.Tensor, *, block: int) -> torch.Tensor:
    """Return a copy whose elements beyond the last whole block of a larger tensor are zero."""
    if tensor.numel() <= block:
        return tensor
    kept = compact(tensor).clone()
    kept.view(-1)[kept.numel() // block * block :] = 0
    return kept


def rotated(tensor: torch.Tensor, places: int, dim: int) -> torch.Tensor:
    """Roll a tensor of any dtype by whole elements along `dim`."""
    dim %= tensor.dim()
    raw = fresh(tensor).view(torch.uint8)
    return torch.roll(raw, places * (tensor.element_size() if dim == tensor.dim() - 1 else 1), dim).view(
        tensor.dtype
    )


def is_expanded(tensor: torch.Tensor) -> bool:
    return any(stride == 0 and size > 1 for stride, size in zip(tensor.stride(), tensor.shape, strict=True))
