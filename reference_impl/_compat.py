"""What differs between the supported versions of torch, asked of torch and not of its version."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

# torch 2.13 renamed both and warns on the old names.
_all_gather: Any = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter: Any = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


def all_gather_flat(output: torch.Tensor, input_: torch.Tensor, group: dist.ProcessGroup) -> None:
    """Fill `output`, 1-D of world size times `input_.numel()`, with every rank's 1-D `input_`."""
    _all_gather(output, input_, group=group)


def reduce_scatter_flat(output: torch.Tensor, input_: torch.Tensor, group: dist.ProcessGroup) -> None:
    """Sum every rank's 1-D `input_` and fill `output` with this rank's equal part of the sum."""
    _reduce_scatter(output, input_, op=dist.ReduceOp.SUM, group=group)


def backend_name(group: dist.ProcessGroup, device: torch.device) -> str | None:
    """Name the backend that moves tensors of `device` in `group`; None where the group has none.

    `dist.get_backend` says "undefined" for a group that was made without a backend name, so the group is
    asked (`ProcessGroup._get_backend`, torch 2.0 and newer).
    """
    try:
        backend = group._get_backend(device)
    except RuntimeError:
        return None
    return str(backend.name())
