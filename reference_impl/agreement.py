"""What the ranks are about to do together: told to each other and compared before anybody starts.

torch does not compare the arguments of `new_group` and `split_group`: ranks that differ wait for each other
until a timeout, by default half an hour.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from . import _compat

_PREFIX = "vdist/agreement"


def agree(plan: str, obstacle: str | None, timeout: timedelta | None) -> int:
    """Tell every rank of the world what this one is about to do, or what keeps it from that.

    Every rank calls it, and in the same order. Returns a number that is the same on all ranks and new within
    the life of the default process group. Raises, on all ranks alike, ValueError where their plans differ and
    RuntimeError where any of them has an obstacle; RuntimeError where a rank does not come within `timeout`,
    None for that of the store of the default process group, and where that store is gone.
    """
    store, rank, world_size = _compat.default_store(), dist.get_rank(), dist.get_world_size()
    with _store_that_answers(plan):
        number: int = store.add(f"{_PREFIX}/{rank}", 1)
        keys = [f"{_PREFIX}/{number}/{other}" for other in range(world_size)]
        store.set(keys[rank], json.dumps([plan, obstacle]))
        _wait_for(store, keys, timeout, plan)
        told = [json.loads(text) for text in store.multi_get(keys)]
    _require_no_obstacle([obstacle for _, obstacle in told], plan)
    _require_one_plan([plan for plan, _ in told])
    return number


def _wait_for(store: Any, keys: Sequence[str], timeout: timedelta | None, plan: str) -> None:
    try:
        store.wait(keys) if timeout is None else store.wait(keys, timeout)
    except dist.DistNetworkError:
        raise
    except RuntimeError as error:
        absent = [rank for rank, key in enumerate(keys) if not store.check([key])]
        limit = "the timeout of the store" if timeout is None else f"{timeout.total_seconds():g} seconds"
        raise RuntimeError(
            f"rank(s) {absent} did not come within {limit} to make {plan}: every rank of the world makes the "
            "same groups in the same order, whether it is a member or not"
        ) from error


@contextmanager
def _store_that_answers(plan: str) -> Iterator[None]:
    try:
        yield
    except dist.DistNetworkError as error:
        raise RuntimeError(
            f"rank {dist.get_rank()} cannot make {plan}: the store of the default process group does not "
            f"answer ({error}); where the process that hosts it has ended, destroy the environment and "
            "initialise it again with another store"
        ) from error


def _require_no_obstacle(obstacles: Sequence[str | None], plan: str) -> None:
    """Raise the obstacle of this rank, or else the first of others'."""
    own = obstacles[dist.get_rank()]
    kept = [rank for rank, obstacle in enumerate(obstacles) if obstacle is not None]
    if own is not None:
        raise RuntimeError(f"cannot make {plan}: {own}")
    if kept:
        raise RuntimeError(f"cannot make {plan}: on rank(s) {kept} {obstacles[kept[0]]}")


def _require_one_plan(plans: Sequence[str]) -> None:
    by_text: dict[str, list[int]] = {}
    for rank, text in enumerate(plans):
        by_text.setdefault(text, []).append(rank)
    if len(by_text) > 1:
        told = "; ".join(f"rank(s) {ranks} make {text}" for text, ranks in by_text.items())
        raise ValueError(
            f"the ranks are not about to make the same groups: {told}; pass the same lists on every rank, in "
            "the same order"
        )
