"""Real ranks: they start, reduce, obey a timeout and split groups, or it is said what they do instead."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from pytest_vdist.backends.base import DeviceBackend
from pytest_vdist.backends.registry import availability, find_backend
from pytest_vdist.doctor.findings import Finding
from pytest_vdist.ranks.context import current_rank
from pytest_vdist.ranks.failures import DistributedRunError
from pytest_vdist.ranks.messages import WorldSpec
from pytest_vdist.ranks.pool import RankPool

_RUN_TIMEOUT = 60.0
_GROUP_TIMEOUT = 0.3
_SLACK = 2.0


@dataclass(frozen=True)
class Trial:
    """What ranks did. Times in seconds; `timeout` is how long a group of `_GROUP_TIMEOUT` waited for a rank.

    `split` is torch's refusal to split the default group, "" if it did, None if torch has no such function.
    """

    ranks: int
    start: float
    all_reduce: float
    sums: tuple[float, ...]
    timeout: float | None
    split: str | None


def ranks(name: str, run: Callable[[], Trial]) -> Finding:
    """Judge a trial of ranks on a device backend."""
    title = f"ranks on {name}"
    try:
        trial = run()
    except DistributedRunError as error:
        return Finding(
            title, "do not work", error.headline, "run a test of one all_reduce with -v to see all of it"
        )
    value = (
        f"{trial.ranks} ready in {trial.start:.1f} s, all_reduce in {trial.all_reduce * 1e3:.1f} ms, "
        f"{_timeout_text(trial.timeout)}{_split_text(trial.split)}"
    )
    expected = float(sum(range(1, trial.ranks + 1)))
    if set(trial.sums) != {expected}:
        problem = f"all_reduce gave {', '.join(map(str, trial.sums))} by rank, the sum is {expected}"
        return Finding(title, value, problem, "update torch and the device's driver and library")
    if trial.timeout is not None and trial.timeout > _GROUP_TIMEOUT + _SLACK:
        problem = f"a group with a timeout of {_GROUP_TIMEOUT} s waited for {trial.timeout:.1f} s"
        return Finding(title, value, problem, "use the deadline of runs (--vdist-timeout) against hangs")
    return Finding(title, value)


def try_ranks(name: str) -> Trial:
    """Start ranks of a backend, two where there are devices for two, and let them communicate."""
    backend = find_backend(name, origin="vdist doctor")
    count = availability(backend).device_count
    size = 2 if backend.shares_device else min(2, count)
    pool = RankPool(backend, count)
    try:
        return _try_ranks(pool, backend, size)
    finally:
        pool.close()


def _try_ranks(pool: RankPool, backend: DeviceBackend, size: int) -> Trial:
    world = WorldSpec(backend.device_type, process_group_backend=backend.process_group_backend)

    def on_ranks(function: Callable[[], Any], world: WorldSpec) -> list[Any]:
        return pool.run(function, (), {}, world=world, world_size=size, timeout=_RUN_TIMEOUT)

    started = time.monotonic()
    on_ranks(_do_nothing, WorldSpec(backend.device_type))
    ready = time.monotonic() - started
    reduced = on_ranks(_all_reduce, world)
    return Trial(
        ranks=size,
        start=ready,
        all_reduce=max(seconds for _, seconds in reduced),
        sums=tuple(total for total, _ in reduced),
        # A communicator for a device may be torn down, or end its process, at its timeout.
        timeout=on_ranks(_wait_in_vain, world)[0] if size > 1 and backend.shares_device else None,
        split=on_ranks(_split, world)[0],
    )


def _do_nothing() -> None:
    pass


def _all_reduce() -> tuple[float, float]:
    """Return the sum of all ranks' numbers from 1 on, and the seconds of the second of two all_reduces."""
    here = current_rank()
    dist.all_reduce(torch.zeros(1, device=here.device))
    tensor = torch.full((1,), here.rank + 1.0, device=here.device)
    started = time.monotonic()
    dist.all_reduce(tensor)
    total = float(tensor.item())
    return total, time.monotonic() - started


def _wait_in_vain() -> float:
    """Return how long rank 0 waits in a group in which nobody answers."""
    group = dist.new_group(timeout=timedelta(seconds=_GROUP_TIMEOUT))
    started = time.monotonic()
    if current_rank().rank == 0:
        with contextlib.suppress(RuntimeError):  # the timeout; without one, the run's deadline ends the wait
            dist.recv(torch.zeros(1), src=1, group=group)
    waited = time.monotonic() - started
    dist.barrier()
    return waited


def _split() -> str | None:
    split_group = getattr(dist, "split_group", None)
    if split_group is None:
        return None
    try:
        split_group(split_ranks=[list(range(dist.get_world_size()))])
    except (RuntimeError, ValueError) as error:
        return str(error).partition("\n")[0]
    return ""


def _timeout_text(seconds: float | None) -> str:
    return (
        ""
        if seconds is None
        else f"a group's timeout of {_GROUP_TIMEOUT} s ends a wait after {seconds:.1f} s, "
    )


def _split_text(refusal: str | None) -> str:
    if refusal is None:
        return "no split_group"
    return f"split_group refuses: {refusal}" if refusal else "split_group works"
