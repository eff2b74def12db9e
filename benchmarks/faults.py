"""How soon a failing rank is reported: from the moment of the fault to the exception in the controller.

    python benchmarks/faults.py [--world-size N] [--repeats N]

A hang counts from the deadline of its run.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).parent.parent))  # the faults are those of the tests

from pytest_vdist import DistributedRunError
from pytest_vdist.backends.cpu import BACKEND
from pytest_vdist.ranks.messages import WorldSpec
from pytest_vdist.ranks.pool import RankPool
from tests.ranks.fault_kinds import FAULTS, Fault

GLOO = WorldSpec("cpu", process_group_backend="gloo")
DEADLINE = 1.0


def fail(fault: Fault, told: int) -> None:
    dist.barrier()
    if dist.get_rank() == 1:
        os.pwrite(told, f"{time.monotonic():.6f}".encode(), 0)
        fault.happen()
    dist.barrier()


def seconds_to_report(pool: RankPool, fault: Fault, size: int, place: Path) -> float:
    """Make one run with the fault and return how long its report took."""

    def body() -> None:
        fail(fault, os.open(place, os.O_WRONLY | os.O_CREAT))

    started = time.monotonic()
    deadline = DEADLINE if fault.kind == "hung" else 60.0
    try:
        pool.run(body, (), {}, world=GLOO, world_size=size, timeout=deadline)
    except DistributedRunError:
        reported = time.monotonic()
    else:
        raise AssertionError(f"a run with the fault {fault.name} did not fail")
    if fault.kind == "hung":
        return reported - started - deadline
    return reported - float(place.read_text(encoding="ascii"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--world-size", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    pool = RankPool(BACKEND, 1)
    place = Path(f"/tmp/vdist-faults-{os.getpid()}")
    print(
        f"{arguments.world_size} ranks, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; milliseconds"
    )
    try:
        for fault in FAULTS:
            pool.run(int, (), {}, world=GLOO, world_size=arguments.world_size, timeout=60)
            times = [
                seconds_to_report(pool, fault, arguments.world_size, place) for _ in range(arguments.repeats)
            ]
            print(
                f"{fault.name:14} median {statistics.median(times) * 1e3:7.1f}   most {max(times) * 1e3:7.1f}"
            )
    finally:
        place.unlink(missing_ok=True)
        pool.close()


if __name__ == "__main__":
    main()
