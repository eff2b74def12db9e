"""What subgroups cost by new_group and by split_group: their creation, and the first all_reduce of each.

A subgroup is what a coordinator of the reference implementation makes: a process group for the device and
one for the CPU, over all ranks. The slowest rank counts; the figures are medians of the rounds.

    python benchmarks/groups.py [--backend NAME] [--world-size N] [--counts 1,8,64] [--rounds N]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from pytest_vdist import Coordinator, DeviceBackend, ImplementationSpec, init_settings
from pytest_vdist.backends.registry import find_backend, require_devices
from pytest_vdist.ranks.messages import WorldSpec
from pytest_vdist.ranks.pool import RankPool

TIMEOUT = 300.0
IMPLEMENTATION = ImplementationSpec.resolve("reference", "the benchmark")
WAYS = {"new_group": False, "split_group": True}


@dataclass(frozen=True)
class Figures:
    """Seconds for all subgroups together."""

    creation: float
    first_use: float


def use(group: Coordinator) -> None:
    """All-reduce a few numbers and wait for the result to be on the CPU."""
    group.all_reduce(torch.ones(4, device=group.device)).tolist()


def create(count: int, *, split_group: bool) -> Figures:
    """Make the subgroups in this rank, in a world of their own that is warm and meets as under torchrun."""
    world, settings = IMPLEMENTATION.load(), replace(init_settings("env://"), split_group=split_group)
    world.init(settings)
    ranks = list(range(settings.world_size))
    everyone = world.coordinator([ranks], name="everyone")
    use(everyone)
    everyone.barrier()
    start = time.perf_counter()
    groups = [world.coordinator([ranks], name="subgroup") for _ in range(count)]
    everyone.barrier()
    created = time.perf_counter()
    for group in groups:
        use(group)
    everyone.barrier()
    used = time.perf_counter()
    world.destroy()
    return Figures(created - start, used - created)


@contextmanager
def pool_of(backend: DeviceBackend) -> Iterator[RankPool]:
    pool = RankPool(backend, require_devices(backend, origin="the benchmark").device_count)
    try:
        yield pool
    finally:
        pool.close()


def measure(pool: RankPool, device_type: str, world_size: int, count: int, *, split_group: bool) -> Figures:
    by_rank = pool.run(
        create,
        (count,),
        {"split_group": split_group},
        world=WorldSpec(device_type),
        world_size=world_size,
        timeout=TIMEOUT,
    )
    return Figures(max(f.creation for f in by_rank), max(f.first_use for f in by_rank))


def ways_on(device_type: str) -> dict[str, bool]:
    """Return the ways that the device has, and say why one is missing."""
    capabilities = IMPLEMENTATION.capabilities(device_type)
    if capabilities.supports("split_group"):
        return WAYS
    print(capabilities.unsupported["split_group"])
    return {"new_group": False}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--backend", default="simdev", help="a device backend, as for --vdist-backend")
    parser.add_argument("--world-size", type=int, default=2)
    parser.add_argument("--counts", default="1,8,64", help="numbers of subgroups")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    backend = find_backend(arguments.backend, origin="--backend")
    counts = [int(count) for count in arguments.counts.split(",")]
    seen: dict[tuple[int, str], list[Figures]] = {}
    with pool_of(backend) as pool:
        ways = ways_on(backend.device_type)
        for _ in range(arguments.rounds):
            for count in counts:
                for way, split in ways.items():
                    figures = measure(
                        pool, backend.device_type, arguments.world_size, count, split_group=split
                    )
                    seen.setdefault((count, way), []).append(figures)
    print(
        f"{arguments.world_size} ranks on {backend.name} ({backend.library_version()}), torch "
        f"{torch.__version__}, medians of {arguments.rounds} rounds"
    )
    print(f"{'subgroups':>9}  {'way':11}  {'creation':>10}  {'first use':>10}  {'each':>10}")
    for (count, way), of_rounds in seen.items():
        creation = statistics.median(f.creation for f in of_rounds)
        first_use = statistics.median(f.first_use for f in of_rounds)
        each = (creation + first_use) / count * 1e3
        print(f"{count:9}  {way:11}  {creation:8.3f} s  {first_use:8.3f} s  {each:7.2f} ms")


if __name__ == "__main__":
    main()
