"""What calls of process groups need of torch beyond its public interface."""

from __future__ import annotations

import importlib
from contextlib import AbstractContextManager
from typing import Any

import torch.distributed as dist
from torch.distributed import distributed_c10d


def coalescing(group: dist.ProcessGroup, *, async_ops: bool) -> AbstractContextManager[Any]:
    """Return the block in which collectives of one kind become one call.

    `_coalescing_manager`, torch 2.1 to 2.15: there is no public way, and FSDP goes this one.
    """
    return distributed_c10d._coalescing_manager(group, async_ops=async_ops)


def functional(*names: str) -> Any:
    """Return the functional collective of the first of these names that this torch has.

    `torch.distributed._functional_collectives`, torch 2.1 to 2.15: documented nowhere, used by DTensor and,
    in place of torch.distributed's, by compilers.
    """
    module = importlib.import_module("torch.distributed._functional_collectives")
    return next(getattr(module, name) for name in names if hasattr(module, name))
