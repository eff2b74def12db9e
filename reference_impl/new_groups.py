"""Subgroups by `torch.distributed.new_group`: one call for each list of ranks, by every rank of the world."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import torch.distributed as dist

from . import _compat

CPU_BACKEND = "gloo"


@dataclass(frozen=True)
class NewGroups:
    """Makes groups from scratch. `backend` None takes that of the default process group."""

    backend: str | None

    def obstacle(self) -> str | None:
        """Say what keeps torch from making groups this way: nothing."""
        return None

    def device_group(
        self,
        partition: Sequence[Sequence[int]],
        timeout: timedelta | None,
        description: str,
        key: str,  # noqa: ARG002 - new_group counts for itself
    ) -> dist.ProcessGroup | None:
        """Make the device groups of all lists and return that of this rank; None on a rank in no list."""
        return _make(partition, timeout, description, self.backend)

    def cpu_group(
        self,
        partition: Sequence[Sequence[int]],
        timeout: timedelta | None,
        description: str,
        key: str,  # noqa: ARG002 - new_group counts for itself
    ) -> dist.ProcessGroup | None:
        """Make the CPU groups of all lists and return that of this rank; None on a rank in no list."""
        with _compat.unbound_default_group():
            return _make(partition, timeout, description, CPU_BACKEND)


def _make(
    partition: Sequence[Sequence[int]], timeout: timedelta | None, description: str, backend: str | None
) -> dist.ProcessGroup | None:
    own = None
    for ranks in partition:
        group = dist.new_group(list(ranks), timeout=timeout, backend=backend, group_desc=description)
        if dist.get_rank() in ranks:
            own = group
    return own
