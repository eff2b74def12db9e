"""What compiling costs: the chapter `compile` with a cold and a warm cache, and an operator for a collective.

The chapter runs twice in each mode, with one cache of inductor that is empty at first. Then, on ranks, an
all_reduce of a few numbers and one of a megabyte are timed, each as the bare collective of torch.distributed
(in place), by the communicator (a copy, summed), by the coordinator, which checks its arguments, and by the
operator, which finds the coordinator by name. Medians of rounds in turns, of the slowest rank.

    python benchmarks/compile.py [--backend NAME] [--modes eager,aot_eager,inductor] [--rounds N]
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import pytest_vdist
from pytest_vdist import DeviceBackend, ImplementationSpec, init_settings
from pytest_vdist.backends.registry import find_backend, require_devices
from pytest_vdist.ranks.messages import WorldSpec
from pytest_vdist.ranks.pool import RankPool

TIMEOUT = 300.0
CHAPTER = Path(pytest_vdist.__file__).parent / "suites" / "compile"
IMPLEMENTATION = ImplementationSpec.resolve("reference", "the benchmark")
SIZES = {"64 B": 16, "1 MiB": 1 << 18}
CALLS = {"64 B": 200, "1 MiB": 20}


def chapter_seconds(backend: str, mode: str, cache: str, extra: Sequence[str]) -> tuple[float, str]:
    """Run the chapter in one mode, and return seconds and pytest's summary."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        f"--vdist-backend={backend}",
        f"--vdist-compile={mode}",
        "--vdist-world-sizes=1,2",
        "--vdist-timeout=300",
        *extra,
        str(CHAPTER),
    ]
    start = time.perf_counter()
    result = subprocess.run(
        command,
        env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": cache},
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - start
    summary = re.findall(r"^(.*(?:passed|failed|error).*) in [\d.]+s", result.stdout, re.MULTILINE)
    return seconds, summary[-1] if summary else result.stdout[-500:] + result.stderr[-500:]


def report_chapter(backend: str, modes: Sequence[str], extra: Sequence[str]) -> None:
    print(f"{'mode':10}  {'cold cache':>11}  {'warm cache':>11}  result")
    for mode in modes:
        with tempfile.TemporaryDirectory() as cache:
            cold, _ = chapter_seconds(backend, mode, cache, extra)
            warm, summary = chapter_seconds(backend, mode, cache, extra)
        print(f"{mode:10}  {cold:9.1f} s  {warm:9.1f} s  {summary}", flush=True)


def microseconds(rounds: int) -> dict[tuple[str, str], list[float]]:
    """Time the ways to sum, in this rank, in a world of their own; microseconds of a call, by round."""
    settings = init_settings("env://")
    world = IMPLEMENTATION.load()
    world.init(settings)
    group = world.coordinator([list(range(settings.world_size))], name="timed")
    times: dict[tuple[str, str], list[float]] = {}
    for _ in range(rounds):
        for size, numel in SIZES.items():
            for way, call in _ways(group, torch.ones(numel, device=group.device)).items():
                times.setdefault((size, way), []).append(_timed(call, CALLS[size], group))
    world.destroy()
    return times


def _ways(group: Any, tensor: torch.Tensor) -> dict[str, Callable[[], object]]:
    communicator, process_group, name = group.device_communicator, group.device_group, group.unique_name
    ways: dict[str, Callable[[], object]] = {
        "torch.distributed": lambda: dist.all_reduce(tensor, group=process_group),
        "coordinator": lambda: group.all_reduce(tensor),
        "operator": lambda: torch.ops.vdist.all_reduce(tensor, name),
    }
    if communicator is not None:
        ways["communicator"] = lambda: communicator.all_reduce(tensor)
    return ways


def _timed(call: Callable[[], object], count: int, group: Any) -> float:
    """Return microseconds of a call, the device's work included."""
    call()
    group.barrier()
    start = time.perf_counter()
    for _ in range(count):
        call()
    if group.device.type != "cpu":
        torch.get_device_module(group.device).synchronize()
    return (time.perf_counter() - start) / count * 1e6


def report_operator(backend: DeviceBackend, world_size: int, rounds: int) -> None:
    pool = RankPool(backend, require_devices(backend, origin="the benchmark").device_count)
    try:
        by_rank = pool.run(
            microseconds,
            (rounds,),
            {},
            world=WorldSpec(backend.device_type),
            world_size=world_size,
            timeout=TIMEOUT,
        )
    finally:
        pool.close()
    medians = {
        key: statistics.median(
            max(times) for times in zip(*(of_rank[key] for of_rank in by_rank), strict=True)
        )
        for key in by_rank[0]
    }
    print(f"\nall_reduce on {world_size} rank(s), medians of {rounds} rounds")
    for (size, way), median in medians.items():
        print(f"{size:>6}  {way:18}  {median:9.2f} us")
    for size in SIZES:
        over = medians[size, "operator"] - medians[size, "coordinator"]
        bare = medians[size, "operator"] - medians[size, "torch.distributed"]
        print(
            f"{size:>6}  the operator takes {over:+.2f} us more than the coordinator, "
            f"{bare:+.2f} us more than the collective in place"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--backend", default="cpu", help="a device backend, as for --vdist-backend")
    parser.add_argument("--modes", default="eager,aot_eager,inductor", help="compile modes; empty for none")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("pytest_arguments", nargs="*", help="passed on to pytest, after --")
    arguments = parser.parse_args()
    backend = find_backend(arguments.backend, origin="--backend")
    print(f"{backend.name} ({backend.library_version()}), torch {torch.__version__}")
    if arguments.modes:
        report_chapter(backend.name, arguments.modes.split(","), arguments.pytest_arguments)
    for world_size in (1, 2):
        report_operator(backend, world_size, arguments.rounds)


if __name__ == "__main__":
    main()
