"""What one two-rank test costs, beside torch's own harnesses, in one run.

Each harness runs the same body (an all_reduce of 1024 floats and a check) as pytest tests; the figures are
the times that pytest itself reports per test, from its JUnit file. Needs the extra `bench`.

    python benchmarks/ranks.py [--rounds N]
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

PEERS = Path(__file__).parent / "peers"
TIMEOUT = 600


@dataclass(frozen=True)
class Figures:
    """Seconds: of the first test, which pays for the start, and of the median further test."""

    first: float
    further: float


def measure(harness: str) -> Figures:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "junit.xml"
        durations = Path(folder) / "durations.json"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "testpaths="]
        command += ["-o", "addopts=", "-W", "ignore", f"--junitxml={report}", f"--durations-to={durations}"]
        subprocess.run(
            [*command, str(PEERS / f"test_{harness}.py")], check=True, timeout=TIMEOUT, stdout=sys.stderr
        )
        times = json.loads(durations.read_text())
        cases = len(list(ElementTree.parse(report).iter("testcase")))
    if cases != len(times):
        raise RuntimeError(f"{harness}: {cases} tests were reported, but {len(times)} were timed")
    return Figures(times[0], statistics.median(times[1:]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often each harness runs, in turn")
    rounds = parser.parse_args().rounds
    harnesses = ("vdist", "continuous", "multiprocess")
    seen: dict[str, list[Figures]] = {name: [] for name in harnesses}
    for _ in range(rounds):
        for name in harnesses:
            seen[name].append(measure(name))
    print(f"two ranks, {platform.processor() or platform.machine()}, {rounds} rounds, medians")
    ours = statistics.median(f.further for f in seen["vdist"])
    for name in harnesses:
        first = statistics.median(f.first for f in seen[name])
        further = statistics.median(f.further for f in seen[name])
        print(f"{name:14} first {first:8.3f} s   further {further * 1e3:9.2f} ms   {further / ours:8.1f} x")


if __name__ == "__main__":
    main()
