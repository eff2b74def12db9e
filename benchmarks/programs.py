"""Random programs: how many a second, how many without a failure, which mutants they find and how small.

python benchmarks/programs.py rate [--count N] [--world-size N ...]    programs per second, and their costs
python benchmarks/programs.py soak [--count N] [--world-size N ...]    as many as that, until one fails
python benchmarks/programs.py mutants [NAME ...] [--count N]           shrunk program of each mutant found
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import hypothesis

from pytest_vdist.backends.registry import availability, find_backend
from pytest_vdist.implementations.spec import ImplementationSpec
from pytest_vdist.program_run import ProgramFailedError, ProgramRun, search
from pytest_vdist.programs.explanation import describe
from pytest_vdist.programs.model import Program
from pytest_vdist.programs.scope import Scope
from pytest_vdist.programs.script import Setting
from pytest_vdist.ranks.messages import WorldSpec
from pytest_vdist.ranks.pool import RankPool
from pytest_vdist.ranks.world import call_with_coordinator
from pytest_vdist.reference_impl.mutants import MUTANTS

TIMEOUT = 60.0


class Ranks:
    """Ranks of one device that run an implementation."""

    def __init__(self, backend: str, implementation: str) -> None:
        self.device = find_backend(backend, origin="the command line")
        self.spec = ImplementationSpec.resolve(implementation, "the command line")
        self.capabilities = self.spec.capabilities(self.device.device_type)
        self.seconds = 0.0
        self._pool = RankPool(self.device, availability(self.device).device_count)

    def run(
        self,
        function: Callable[..., Any],
        /,
        *args: Any,
        world_size: int = 2,
        timeout: float | None = None,
        **_: Any,
    ) -> list[Any]:
        world = WorldSpec(self.device.device_type, implementation=self.spec)
        started = time.perf_counter()
        try:
            return self._pool.run(
                call_with_coordinator,
                (function, None, *args),
                {},
                world=world,
                world_size=world_size,
                timeout=timeout or TIMEOUT,
            )
        finally:
            self.seconds += time.perf_counter() - started

    def program_run(self) -> ProgramRun:
        accumulate = self.capabilities.accumulate
        setting = Setting(
            self.spec.target, self.device.device_type, self.device.rank_setup, False, accumulate
        )
        return ProgramRun(self.run, setting, TIMEOUT, hypothesis.reject)

    def scope(self, world_size: int) -> Scope:
        return Scope(
            world_size,
            self.capabilities.reduction_dtypes or self.device.reduction_dtypes,
            self.capabilities.movement_dtypes or self.device.movement_dtypes,
            tuple(self.capabilities.unsupported),
        )

    def close(self) -> None:
        self._pool.close()


class Timed:
    """Runs programs, and takes down their lengths and the seconds that they take, judging included."""

    def __init__(self, run: Callable[[Program], None]) -> None:
        self._run = run
        self.lengths: list[int] = []
        self.seconds = 0.0

    def __call__(self, program: Program) -> None:
        self.lengths.append(len(program.calls))
        started = time.perf_counter()
        self._run(program)
        self.seconds += time.perf_counter() - started


def rank_cpu_seconds(world: object) -> float:
    return time.process_time()


@contextmanager
def ranks_of(backend: str, implementation: str) -> Iterator[Ranks]:
    ranks = Ranks(backend, implementation)
    try:
        yield ranks
    finally:
        ranks.close()


def rate(arguments: argparse.Namespace) -> None:
    load = ", ".join(f"{part:.1f}" for part in os.getloadavg())
    print(f"{arguments.backend}, {os.cpu_count()} cores, load {load}, seed {arguments.seed}")
    for world_size in arguments.world_size:
        with ranks_of(arguments.backend, arguments.implementation) as ranks:
            run = ranks.program_run()
            search(run, ranks.scope(world_size), 50, arguments.seed + 1)
            cpu = ranks.run(rank_cpu_seconds, world_size=world_size)
            timed = Timed(run)
            ranks.seconds = 0.0
            started = time.perf_counter()
            search(timed, ranks.scope(world_size), arguments.count, arguments.seed)
            total, on_ranks = time.perf_counter() - started, ranks.seconds
            cpu_after = ranks.run(rank_cpu_seconds, world_size=world_size)
        count = len(timed.lengths)
        parts = {
            "drawing": total - timed.seconds,
            "on the ranks": on_ranks,
            "judging": timed.seconds - on_ranks,
            "CPU of each rank": sum(cpu_after) / world_size - sum(cpu) / world_size,
        }
        costs = ", ".join(f"{name} {1e3 * part / count:.2f} ms" for name, part in parts.items())
        print(
            f"{world_size} ranks: {count / total:6.1f} programs a second, "
            f"median {statistics.median(timed.lengths):g} calls; each: {costs}",
            flush=True,
        )


def soak(arguments: argparse.Namespace) -> int:
    """Run programs in portions, so that memory of Hypothesis stays small; each has a seed of its own."""
    portion, started = 1000, time.monotonic()
    with ranks_of(arguments.backend, arguments.implementation) as ranks:
        run = ranks.program_run()
        for number in range(0, arguments.count, portion):
            world_size = arguments.world_size[number // portion % len(arguments.world_size)]
            seed = arguments.seed + number // portion
            try:
                search(run, ranks.scope(world_size), min(portion, arguments.count - number), seed)
            except ProgramFailedError as error:
                print(f"seed {seed}: {error}")
                return 1
            done = min(number + portion, arguments.count)
            print(f"{done} programs, {time.monotonic() - started:.0f} s, seed {seed}", flush=True)
    return 0


def mutants(arguments: argparse.Namespace) -> None:
    patterns = arguments.names or ["*"]
    chosen = [name for name in MUTANTS if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]
    found = 0
    for name in chosen:
        started = time.monotonic()
        failure = first_failure(arguments, f"pytest_vdist.mutation.implementations:{name}")
        took = f"{time.monotonic() - started:.0f} s"
        if failure is None:
            print(f"-- {name}: not found, {took}", flush=True)
            continue
        found += 1
        first, calls = failure.problem.splitlines()[0], len(failure.program.calls)
        print(f"{found:3} {name}: {calls} calls on {failure.program.world_size} ranks, {took}")
        print(f"    {first[:200]}")
        print("    " + describe(failure.program).replace("\n", "\n    "), flush=True)
    print(f"{found} of {len(chosen)} mutants found")


def first_failure(arguments: argparse.Namespace, implementation: str) -> ProgramFailedError | None:
    for world_size in arguments.world_size:
        with ranks_of(arguments.backend, implementation) as ranks:
            try:
                search(ranks.program_run(), ranks.scope(world_size), arguments.count, arguments.seed)
            except ProgramFailedError as error:
                return error
    return None


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=("rate", "soak", "mutants"))
    parser.add_argument("names", nargs="*", help="mutants, * for any text")
    parser.add_argument("--backend", default="cpu")
    parser.add_argument("--implementation", default="reference")
    parser.add_argument("--world-size", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--count", type=int, default=500, help="programs for each world size; soak: in all")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(words)
    hypothesis.settings.register_profile("no database", database=None)
    hypothesis.settings.load_profile("no database")
    return {"rate": rate, "soak": soak, "mutants": mutants}[arguments.what](arguments) or 0


if __name__ == "__main__":
    sys.exit(main())
