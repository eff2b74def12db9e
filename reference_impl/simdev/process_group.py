"""Makes the process groups of the backend `simccl`, as torch asks for them."""

from __future__ import annotations

import copy
from datetime import timedelta
from typing import Any

from torch.distributed import distributed_c10d

from .extension import extension


def create(settings: Any, pg_options: Any = None) -> Any:
    """Return the backend of one group. `settings` is torch's `DistributedBackendOptions`.

    `pg_options` is a `SimcclOptions` or None; torch's timeout overrides its own, as for NCCL. Raises
    TypeError for other options.
    """
    simccl = extension()
    if not isinstance(pg_options, simccl.SimcclOptions | None):
        raise TypeError(f"pg_options must be a SimcclOptions or None, got {pg_options!r}")
    options = simccl.SimcclOptions(settings.timeout) if pg_options is None else copy.copy(pg_options)
    options._timeout = settings.timeout  # noqa: SLF001 - the name that torch gives every backend's options
    options.group_name = settings.group_id
    options.global_ranks_in_group = settings.global_ranks_in_group
    return simccl.ProcessGroupSimccl(settings.store, settings.group_rank, settings.group_size, options)


def make_gloo(store: Any, rank: int, size: int, timeout: timedelta) -> Any:
    """Return the gloo backend that moves the data of one simccl group."""
    return distributed_c10d.ProcessGroupGloo(store, rank, size, timeout=timeout)
