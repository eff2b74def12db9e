"""A place where the ranks of a test meet, whatever became of their process groups."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

import torch.distributed as dist

_PATIENCE = timedelta(seconds=60)
_LOOK_AGAIN = 0.05  # seconds; a store of files tells nobody that something was written


class Meeting:
    """Lets ranks wait for each other by a file, which needs neither a group nor a host of a store."""

    def __init__(self, path: str, rank: int) -> None:
        self._store: Any = dist.FileStore(path, -1)  # type: ignore[attr-defined]
        self._rank = rank

    def arrive(self, place: str, text: str = "") -> None:
        """Tell the others that this rank has come to `place`, and a word for them."""
        self._store.set(f"{place}/{self._rank}", text)

    def await_ranks(self, place: str, ranks: Iterable[int]) -> dict[int, str]:
        """Wait until `ranks` have come to `place` and return what they say.

        Raises RuntimeError after a minute.
        """
        wanted = list(ranks)
        self._store.wait([f"{place}/{rank}" for rank in wanted], _PATIENCE)
        return {rank: self._store.get(f"{place}/{rank}").decode() for rank in wanted}

    def gather(self, place: str, ranks: Iterable[int], text: str = "") -> dict[int, str]:
        """Come to `place` and wait until all of `ranks` have."""
        self.arrive(place, text)
        return self.await_ranks(place, ranks)

    def outlast(self, place: str, pids: Mapping[int, int], seconds: float) -> None:
        """Come to `place` and wait until each rank of `pids` has come too or its process has ended.

        Waits for `seconds` at most.
        """
        self.arrive(place)
        deadline = time.monotonic() + seconds
        for rank, pid in pids.items():
            try:
                descriptor = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            try:
                while time.monotonic() < deadline and not self._store.check([f"{place}/{rank}"]):
                    if select.select([descriptor], [], [], _LOOK_AGAIN)[0]:
                        break
            finally:
                os.close(descriptor)
