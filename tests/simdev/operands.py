"""Tensors for tests of simccl, and how ranks meet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from pytest_vdist import current_rank

WORLD = 4
untyped_dist: Any = dist  # for what torch does not export to type checkers
# torch 2.13 renamed both.
all_gather_single: Any = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
reduce_scatter_single: Any = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
Layout = Callable[[torch.Tensor], torch.Tensor]
GAP = 99.0


def data(rank: int, shape: tuple[int, ...] = (4, 3), dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Return what a rank gives: small whole numbers that depend on rank and position."""
    numel = torch.Size(shape).numel()
    return ((torch.arange(numel) * (rank + 2) + rank) % 11).to(dtype).reshape(shape)


def plain(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to("simdev")


def transposed(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.t().contiguous().to("simdev").t()


def with_gaps(tensor: torch.Tensor) -> torch.Tensor:
    """Return a copy on the device whose elements have other elements between them."""
    wide = tensor.new_full((*tensor.shape[:-1], 2 * tensor.shape[-1]), GAP).to("simdev")
    wide[..., ::2] = tensor.to("simdev")
    return wide[..., ::2]


def gaps_of(tensor: torch.Tensor) -> torch.Tensor:
    shape = (*tensor.shape[:-1], 2 * tensor.shape[-1])
    return tensor.as_strided(shape, (*tensor.stride()[:-1], 1))[..., 1::2]


LAYOUTS: dict[str, Layout] = {"contiguous": plain, "transposed": transposed, "with gaps": with_gaps}


def meet(group: dist.ProcessGroup | None = None) -> None:
    dist.barrier(group=group, device_ids=[current_rank().device.index])


def connect() -> None:
    """Connect all ranks of the world, as only what every two of them exchange does."""
    numbers = torch.zeros(dist.get_world_size(), device=current_rank().device)
    dist.all_to_all_single(torch.empty_like(numbers), numbers)
