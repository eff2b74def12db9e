"""Functions of torch.distributed that torch 2.13 has renamed."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

# torch 2.13 renamed both and warns of the old names. They are looked up at each call, so that what replaces
# them is called.
ALL_GATHER_TENSOR = "all_gather_single" if hasattr(dist, "all_gather_single") else "all_gather_into_tensor"
REDUCE_SCATTER_TENSOR = (
    "reduce_scatter_single" if hasattr(dist, "reduce_scatter_single") else "reduce_scatter_tensor"
)


def all_gather_tensor(output: torch.Tensor, input_: torch.Tensor, **options: Any) -> Any:
    """Call `all_gather_into_tensor`, whatever this torch calls it."""
    return getattr(dist, ALL_GATHER_TENSOR)(output, input_, **options)


def reduce_scatter_tensor(output: torch.Tensor, input_: torch.Tensor, **options: Any) -> Any:
    """Call `reduce_scatter_tensor`, whatever this torch calls it."""
    return getattr(dist, REDUCE_SCATTER_TENSOR)(output, input_, **options)
