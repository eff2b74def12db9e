"""Latency and bus bandwidth at sizes of your choice, as the chapter `performance` measures and judges them.

The coordinator's call beside the bare one of torch.distributed, in the same run; the slowest rank counts.

    python benchmarks/bandwidth.py [--backend NAME] [--world-size N] [--sizes BYTES,BYTES] [--repeats N]
                                   [--rounds N]
"""

from __future__ import annotations

import argparse

import torch

from pytest_vdist import ImplementationSpec
from pytest_vdist.backends.registry import find_backend, require_devices
from pytest_vdist.ranks.messages import WorldSpec
from pytest_vdist.ranks.pool import RankPool
from pytest_vdist.ranks.world import call_with_coordinator
from pytest_vdist.suites.performance.test_bandwidth import COLLECTIVES, measure

TIMEOUT = 300.0
IMPLEMENTATION = ImplementationSpec.resolve("reference", "the benchmark")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--backend", default="cpu", help="a device backend, as for --vdist-backend")
    parser.add_argument("--world-size", type=int, default=2)
    parser.add_argument("--sizes", default="8,1024,65536,1048576,16777216", help="of messages, in bytes")
    parser.add_argument("--repeats", type=int, default=20, help="calls in a row that are timed")
    parser.add_argument("--rounds", type=int, default=7, help="of which the median holds")
    arguments = parser.parse_args()
    backend, ranks = find_backend(arguments.backend, origin="--backend"), arguments.world_size
    pool = RankPool(backend, require_devices(backend, origin="the benchmark").device_count)
    world = WorldSpec(backend.device_type, implementation=IMPLEMENTATION)
    print(f"{ranks} ranks on {backend.name} ({backend.library_version()}), torch {torch.__version__}, fp32")
    print(
        f"{'collective':15}{'bytes':>12}{'bare':>12}{'coordinator':>14}{'over':>10}"
        f"{'bare busbw':>14}{'busbw':>10} GB/s"
    )
    try:
        for operation, collective in COLLECTIVES.items():
            for size in map(int, arguments.sizes.split(",")):
                by_rank = pool.run(
                    call_with_coordinator,
                    (measure, None, operation, size, arguments.repeats, arguments.rounds),
                    {},
                    world=world,
                    world_size=ranks,
                    timeout=TIMEOUT,
                )
                sizes, *seconds = zip(*by_rank, strict=True)
                coordinated, bare = map(max, seconds)
                moved = sizes[0] * collective.bus_factor(ranks) / 1e9
                print(
                    f"{operation:15}{sizes[0]:12}{bare * 1e6:9.1f} us{coordinated * 1e6:11.1f} us"
                    f"{(coordinated - bare) * 1e6:7.1f} us{moved / bare:14.2f}{moved / coordinated:10.2f}"
                )
    finally:
        pool.close()


if __name__ == "__main__":
    main()
