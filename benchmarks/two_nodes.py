"""What a second node costs: suites under torchrun on two played machines, on one, and without torchrun.

All have the same ranks on the same cores. The machines are network namespaces, joined by a virtual cable, so
the figures show what the harness and the TCP stack cost, not a network. Needs root.

    python benchmarks/two_nodes.py [--ranks-per-node N] [--rounds N] [SUITE ...]
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
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.ranks.machines import sessions_on, two_machines

SUITES = ("collectives", "groups", "tensor_dict", "objects", "point_to_point")
DEADLINE = 900.0
COUNTS = re.compile(r"^(?:=+ )?(\d+ .*) in [\d.]+s", re.MULTILINE)


def one_machine(arguments: list[str], folder: Path, prefix: list[str]) -> str:
    """Run pytest, with what comes before it, and return its output."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VDIST_")}
    command = [sys.executable, "-m", *prefix, "pytest", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=DEADLINE
    )
    return done.stdout


def two_nodes(arguments: list[str], folder: Path, ranks: int) -> str:
    with two_machines() as machines, sessions_on(machines, arguments, folder, ranks=ranks) as sessions:
        output, _ = (session.communicate(timeout=DEADLINE)[0] for session in sessions)
    return output


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ranks-per-node", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("suites", nargs="*", default=list(SUITES))
    options = parser.parse_args()
    ranks = options.ranks_per_node
    packages = [f"pytest_vdist.suites.{suite}" for suite in options.suites]
    arguments = ["-q", "--vdist-backend=cpu", f"--vdist-world-sizes={2 * ranks}", "--pyargs", *packages]
    torchrun = ["torch.distributed.run", "--standalone", f"--nproc-per-node={2 * ranks}", "-m"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ways: dict[str, Callable[[], str]] = {
            f"two nodes, {ranks} ranks each": lambda: two_nodes(arguments, folder, ranks),
            f"torchrun on one node, {2 * ranks} ranks": lambda: one_machine(arguments, folder, torchrun),
            f"without torchrun, {2 * ranks} ranks": lambda: one_machine(arguments, folder, []),
        }
        print("| | wall time | |\n|---|---|---|")
        for way, run in ways.items():
            seconds = []
            for _ in range(options.rounds):
                started = time.monotonic()
                output = run()
                seconds.append(time.monotonic() - started)
            counts = COUNTS.search(output)
            print(
                f"| {way} | {statistics.median(seconds):.1f} s | {counts[1] if counts else output[-500:]} |"
            )


if __name__ == "__main__":
    main()
