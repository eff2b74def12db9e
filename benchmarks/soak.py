"""Thousands of runs of all kinds, faults among them: nothing may grow.

    python benchmarks/soak.py [--runs 5000] [--faults 0.04] [--seed 0]

Exits with 1 if a run ended otherwise than it had to, or if something has grown.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import torch
import torch.distributed as dist

from pytest_vdist import DistributedRunError
from pytest_vdist.backends.cpu import BACKEND
from pytest_vdist.ranks.messages import WorldSpec
from pytest_vdist.ranks.pool import RankPool

GLOO = WorldSpec("cpu", process_group_backend="gloo")
EMPTY = WorldSpec("cpu")
SIZES = (1, 2, 2, 2, 3, 4)
ALLOWED_GROWTH = {"processes": 0, "descriptors": 8, "threads": 2, "shared_memory": 0, "megabytes": 64.0}


@dataclass(frozen=True)
class Footprint:
    """What the session holds: its own process, and all that it has started."""

    processes: int
    descriptors: int
    threads: int
    shared_memory: int
    megabytes: float


def footprint() -> Footprint:
    """Read the state of this process and of its descendants while no rank is alive."""
    gc.collect()
    status = Path("/proc/self/status").read_text(encoding="ascii")
    resident = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    return Footprint(
        processes=len(descendants(os.getpid())),
        descriptors=len(os.listdir("/proc/self/fd")),
        threads=threading.active_count() + len(os.listdir("/proc/self/task")),
        shared_memory=len(os.listdir("/dev/shm")),
        megabytes=resident / 1024,
    )


def descendants(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return [int(child) for child in children] + [d for child in children for d in descendants(int(child))]


def all_reduce(count: int) -> float:
    x = torch.ones(count)
    dist.all_reduce(x)
    return x.sum().item()


def subgroup(count: int) -> float:
    group = dist.new_group(list(range(dist.get_world_size())))
    x = torch.ones(count)
    dist.all_reduce(x, group=group)
    return x.sum().item()


def own_world(count: int) -> float:
    dist.init_process_group("gloo")
    return all_reduce(count)


def talkative(count: int) -> float:
    print("word " * 200)
    return all_reduce(count)


def fail(how: str) -> None:
    dist.barrier()
    if dist.get_rank() == 0:
        if how == "exception":
            raise ValueError(how)
        if how == "hang":
            threading.Event().wait()
        os.kill(os.getpid(), signal.Signals[how])
    dist.barrier()


def one_run(pool: RankPool, choose: random.Random, faults: float) -> str:
    """Make one run and return its kind; raises AssertionError if it did not end as it had to."""
    size, count = choose.choice(SIZES), choose.choice((1, 1000, 100_000))
    if choose.random() < faults:
        how = choose.choice(("exception", "hang", "SIGKILL", "SIGSEGV", "SIGABRT"))
        timeout = 0.5 if how == "hang" else 60.0
        try:
            pool.run(fail, (how,), {}, world=GLOO, world_size=size, timeout=timeout)
        except DistributedRunError:
            return how
        raise AssertionError(f"a run with the fault {how} did not fail")
    body: Callable[[int], float] = choose.choice((all_reduce, all_reduce, subgroup, talkative, own_world))
    world = EMPTY if body is own_world else GLOO
    fresh = choose.random() < 0.01
    results = pool.run(body, (count,), {}, world=world, world_size=size, timeout=60, fresh=fresh)
    if results != [float(size * count)] * size:
        raise AssertionError(f"{body.__name__} on {size} ranks gave {results}")
    return body.__name__


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=5000)
    parser.add_argument("--faults", type=float, default=0.04, help="share of runs that fail on purpose")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    choose = random.Random(arguments.seed)
    sys.stdout, terminal = open(os.devnull, "w", encoding="utf-8"), sys.stdout  # noqa: SIM115 - until the end
    pool = RankPool(BACKEND, 1)
    for _ in range(max(20, arguments.runs // 20)):  # until everything is imported and every size was there
        one_run(pool, choose, arguments.faults)
    pool.close()
    before, started = footprint(), time.monotonic()
    kinds = Counter(one_run(pool, choose, arguments.faults) for _ in range(arguments.runs))
    seconds = time.monotonic() - started
    pool.close()
    after = footprint()
    grown = []
    print(f"{arguments.runs} runs in {seconds:.0f} s, seed {arguments.seed}: {dict(kinds)}", file=terminal)
    for field in fields(Footprint):
        old, new = getattr(before, field.name), getattr(after, field.name)
        print(f"{field.name:14} {old:10.1f} -> {new:10.1f}", file=terminal)
        if new > old + ALLOWED_GROWTH[field.name]:
            grown.append(field.name)
    print(f"grown: {', '.join(grown) or 'nothing'}", file=terminal)
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main())
