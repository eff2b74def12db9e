"""What ranks cost, part by part, beside the floor: what the pipes and the collective alone take.

python benchmarks/rank_costs.py [--world-sizes 2,4,8] [--repeats N]
"""

from __future__ import annotations

import argparse
import itertools
import os
import signal
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from pytest_vdist.backends.cpu import BACKEND
from pytest_vdist.ranks.messages import WorldSpec
from pytest_vdist.ranks.pool import RankPool

WORLD = WorldSpec("cpu", process_group_backend="gloo")
OTHER_WORLD = WorldSpec("cpu", process_group_backend="cpu:gloo")
NO_WORLD = WorldSpec("cpu")
TIMEOUT = 300.0


def body() -> None:
    """Do what the timed test does: one all_reduce and a check."""
    x = torch.full((1024,), float(dist.get_rank() + 1))
    dist.all_reduce(x)
    size = dist.get_world_size()
    assert torch.all(x == size * (size + 1) / 2)


def collective_alone(count: int) -> float:
    """Seconds of one all_reduce in a loop on the ranks."""
    x = torch.ones(1024)
    dist.all_reduce(x)
    start = time.perf_counter()
    for _ in range(count):
        dist.all_reduce(x)
    return (time.perf_counter() - start) / count


def end_one_rank() -> None:
    if dist.get_rank() == 0:
        os.kill(os.getpid(), signal.SIGKILL)


def pss_of(pid: int) -> float:
    """Megabytes of memory that the process adds, shared pages divided among those who share them."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as rollup:
        return next(int(line.split()[1]) for line in rollup if line.startswith("Pss:")) / 1024


class Costs:
    """Measures on one pool; every time is in milliseconds, a median."""

    def __init__(self, size: int, repeats: int) -> None:
        self._pool = RankPool(BACKEND, 1)
        self._size, self._repeats = size, repeats

    def run(
        self, function: Callable[..., Any], *args: Any, world: WorldSpec = WORLD, fresh: bool = False
    ) -> Any:
        return self._pool.run(
            function, args, {}, world=world, world_size=self._size, timeout=TIMEOUT, fresh=fresh
        )

    def times(self, act: Callable[[int], object], repeats: int | None = None) -> float:
        seconds = []
        for n in range(repeats or self._repeats):
            start = time.perf_counter()
            act(n)
            seconds.append(time.perf_counter() - start)
        return statistics.median(seconds) * 1e3

    def replaced_after_crash(self, _: int) -> None:
        """Take the time of a run on fresh ranks, after a crash."""
        self.run(body)

    def crash(self) -> None:
        try:
            self.run(end_one_rank)
        except Exception as error:
            if "killed by SIGKILL" not in str(error):
                raise

    def figures(self) -> dict[str, float]:
        start = time.perf_counter()
        self.run(body)
        found = {"first result": (time.perf_counter() - start) * 1e3}
        found["dispatch"] = self.times(lambda _: self.run(int))
        found["dispatch, own group"] = self.times(lambda _: self.run(int, world=NO_WORLD))
        self.run(body)
        found["warm test"] = self.times(lambda _: self.run(body))
        found["all_reduce alone"] = max(self.run(collective_alone, self._repeats)) * 1e3
        found["fresh group"] = self.times(
            lambda n: self.run(body, world=OTHER_WORLD if n % 2 else WORLD), self._repeats // 4
        )
        found["fresh processes"] = self.times(lambda _: self.run(body, fresh=True), self._repeats // 4)
        replaced = []
        for _ in range(5):
            self.crash()
            replaced.append(self.times(lambda _: self.run(body), 1))
        found["replaced after crash"] = statistics.median(replaced)
        self.run(body)
        found["MB per rank (PSS)"] = statistics.mean(pss_of(pid) for pid in self._pool.pids())
        start = time.perf_counter()
        self._pool.close()
        found["close"] = (time.perf_counter() - start) * 1e3
        return found


def pipe_floor(size: int, repeats: int) -> float:
    """Milliseconds of a byte to each of so many other processes and back, by plain pipes."""
    pipes = [(os.pipe(), os.pipe()) for _ in range(size)]
    children = [_answering(there, back) for there, back in pipes]
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        for there, _ in pipes:
            os.write(there[1], b"x")
        for _, back in pipes:
            os.read(back[0], 1)
        seconds.append(time.perf_counter() - start)
    for there, _ in pipes:
        os.write(there[1], b"q")
    for pid in children:
        os.waitpid(pid, 0)
    for descriptor in itertools.chain(*itertools.chain(*pipes)):
        os.close(descriptor)
    return statistics.median(seconds) * 1e3


def _answering(there: tuple[int, int], back: tuple[int, int]) -> int:
    pid = os.fork()
    if pid == 0:
        while os.read(there[0], 1) == b"x":
            os.write(back[1], b"x")
        os._exit(0)
    return pid


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--world-sizes", default="2,4,8")
    parser.add_argument("--repeats", type=int, default=200)
    arguments = parser.parse_args()
    sizes = [int(size) for size in arguments.world_sizes.split(",")]
    floors = {size: {"pipes alone": pipe_floor(size, arguments.repeats)} for size in sizes}
    RankPool(BACKEND, 1).run(
        int, (), {}, world=NO_WORLD, world_size=1, timeout=TIMEOUT
    )  # the fork server stands
    columns = {size: floors[size] | Costs(size, arguments.repeats).figures() for size in sizes}
    load = ", ".join(f"{part:.1f}" for part in os.getloadavg())
    print(f"{os.cpu_count()} cores, load {load}; medians in ms unless said otherwise")
    print(f"{'':24}" + "".join(f"{f'{size} ranks':>12}" for size in sizes))
    for name in columns[sizes[0]]:
        print(f"{name:24}" + "".join(f"{columns[size][name]:12.2f}" for size in sizes))


if __name__ == "__main__":
    main()
