"""What one two-rank test costs, beside other harnesses, in one run.

Each harness runs the same body (an all_reduce of 1024 floats and a check) as pytest tests; the figures are
the times that pytest reports per test, set-up and tear-down included. Needs the extra `bench`.

    python benchmarks/ranks.py [--rounds N] [harness ...]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

PEERS = Path(__file__).parent / "peers"
HARNESSES = {
    "vdist": "pytest-vdist: distributed_run",
    "continuous": "torch MultiProcContinuousTest",
    "multiprocess": "torch MultiProcessTestCase",
    "reused_pool": "multiprocessing.Pool kept over tests",
    "torchrun": "torchrun for each test",
}
TIMEOUT = 600


@dataclass(frozen=True)
class Figures:
    """Seconds: of the first test, which pays for the start, and of the median further test."""

    first: float
    further: float


def measure(harness: str) -> Figures:
    """Run one harness's tests in a pytest of their own."""
    with tempfile.TemporaryDirectory() as folder:
        durations = Path(folder) / "durations.json"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "testpaths="]
        command += ["-o", "addopts=", "-W", "ignore", f"--durations-to={durations}"]
        command.append(str(PEERS / f"test_{harness}.py"))
        subprocess.run(command, check=True, timeout=TIMEOUT, stdout=sys.stderr)
        times = json.loads(durations.read_text())
    return Figures(times[0], statistics.median(times[1:]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="how often each harness runs, in turn")
    parser.add_argument("harness", nargs="*", default=list(HARNESSES), help=", ".join(HARNESSES))
    arguments = parser.parse_args()
    seen: dict[str, list[Figures]] = {name: [] for name in arguments.harness}
    for _ in range(arguments.rounds):
        for name, figures in seen.items():
            figures.append(measure(name))
    load = ", ".join(f"{part:.1f}" for part in os.getloadavg())
    print(f"two ranks, {os.cpu_count()} cores, load {load}, median of {arguments.rounds} rounds")
    ours = statistics.median(figures.further for figures in seen[arguments.harness[0]])
    for name, figures in seen.items():
        first = statistics.median(each.first for each in figures)
        further = statistics.median(each.further for each in figures)
        ratio = further / ours
        print(f"{HARNESSES[name]:38} first {first:7.2f} s   further {further * 1e3:9.2f} ms   {ratio:8.1f} x")


if __name__ == "__main__":
    main()
