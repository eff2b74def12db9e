"""What docs/reports tells of a machine with accelerators, in stages, each with a deadline.

    python benchmarks/hardware.py FOLDER [--backend NAME] [--stages NAME,NAME] [--limit SECONDS]
                                  [--shards N [--parts I,J]]

Stages, in the order in which they run:

    core      the profile core, by one process and by several that share the devices: its wall time
    speed     latency and bus bandwidth at all sizes, on the largest world size
    groups    what 1, 8 and 64 subgroups cost by new_group and by split_group
    leases    tests of half of the devices and of all of them, by two workers and by one
    orders    precision and order of sums, by each algorithm and protocol of NCCL
    whole     all suites, both kinds of subgroups, all compile modes: a certification in shards

Logs and reports are in FOLDER. Shards run at the same time and share the devices; the more there are, the
slower is each. Where a machine is had for minutes, each call runs some of them, --parts, and the one that
finds all of them merges them.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pytest_vdist.backends.registry import find_backend, require_devices
from pytest_vdist.backends.sharing import MAX_RUNS_PER_DEVICE

BENCHMARKS = Path(__file__).parent
PYTEST = (sys.executable, "-m", "pytest", "-q")
LEASES = """
import os

import pytest
import torch
import torch.distributed as dist
from pytest_vdist import current_rank


def use(marks):
    number = os.environ[os.environ["VISIBLE"]].split(",")[current_rank().local_rank]
    os.close(os.open(f"{marks}/{number}", os.O_CREAT | os.O_EXCL))
    try:
        x = torch.ones(1 << 20, device=current_rank().device)
        for _ in range(500):
            dist.all_reduce(x)
            x /= dist.get_world_size()
        assert x.sum().item() == 1 << 20
        return number
    finally:
        os.unlink(f"{marks}/{number}")


@pytest.mark.parametrize("turn", range(4))
@pytest.mark.parametrize("share", [2, 1])
def test_use(distributed_run, share, turn):
    ranks = max(1, int(os.environ["DEVICES"]) // share)
    numbers = distributed_run(use, os.environ["MARKS"], world_size=ranks)
    with open(os.environ["USED"], "a") as used:
        used.write(" ".join(numbers) + "\\n")
"""


@dataclass(frozen=True)
class Machine:
    """What is measured, and where to. `limit` is the deadline of a stage, in seconds."""

    folder: Path
    backend: str
    visible_devices_variable: str
    devices: int
    limit: float
    shards: int
    parts: tuple[int, ...]

    def run(
        self,
        name: str,
        command: Sequence[str],
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> str:
        """Run to the end or the deadline, which ends it as Ctrl-C does. Returns what it printed."""
        log, started = self.folder / f"{name}.log", time.monotonic()
        with log.open("wb") as target:
            process = subprocess.Popen(
                [*command],
                stdout=target,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                cwd=cwd,
            )
            try:
                code = str(process.wait(self.limit))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGINT)
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                code = f"not ended within {self.limit:g} s"
        text = log.read_text(errors="replace")
        last = next((line for line in reversed(text.splitlines()) if line.strip()), "")
        print(f"{name}: {last.strip()} (exit code {code}, {time.monotonic() - started:.0f} s)", flush=True)
        return text

    def pytest(self, name: str, *arguments: str, **env: str) -> str:
        return self.run(name, [*PYTEST, f"--vdist-backend={self.backend}", *arguments], env)


def core(machine: Machine) -> None:
    machine.pytest("core", "--vdist-profile=core", "--vdist-certify", str(machine.folder / "core"))
    at_once = (f"-n{len(machine.parts)}", f"--vdist-runs-per-device={len(machine.parts)}")
    machine.pytest("core-shared", "--vdist-profile=core", *at_once)


def speed(machine: Machine) -> None:
    sizes = f"--vdist-world-sizes={machine.devices}"
    text = machine.pytest(
        "speed", sizes, "--vdist-performance=full", "--vdist-timeout=240", "-rP", _chapter("performance")
    )
    print(*re.findall(r"^collective .*", text, re.MULTILINE), sep="\n")


def groups(machine: Machine) -> None:
    command = [sys.executable, str(BENCHMARKS / "groups.py"), "--backend", machine.backend]
    print(machine.run("groups", [*command, "--world-size", str(machine.devices), "--rounds", "1"]))


def leases(machine: Machine) -> None:
    folder = machine.folder / "leases"
    (folder / "marks").mkdir(parents=True)
    (folder / "test_leases.py").write_text(LEASES)
    for workers in (2, 1):
        used = folder / f"used-by-{workers}"
        env = {"MARKS": str(folder / "marks"), "USED": str(used), "DEVICES": str(machine.devices)}
        command = [*PYTEST, "-c", "/dev/null", "--rootdir=.", f"-n{workers}"]
        machine.run(
            f"leases-by-{workers}",
            [*command, f"--vdist-backend={machine.backend}", "test_leases.py"],
            {**env, "VISIBLE": machine.visible_devices_variable},
            cwd=folder,
        )
        print(*sorted(used.read_text().splitlines()) if used.is_file() else (), sep="; ")


def orders(machine: Machine) -> None:
    ways = [("", ""), *itertools.product(("Ring", "Tree"), ("Simple", "LL", "LL128"))]
    for algorithm, protocol in ways if machine.backend == "cuda" else ways[:1]:
        name = f"orders-{algorithm}{protocol}" if algorithm else "orders"
        junit = machine.folder / f"{name}.xml"
        env = {"NCCL_ALGO": algorithm, "NCCL_PROTO": protocol} if algorithm else {}
        machine.pytest(name, _chapter("numerics"), f"--junitxml={junit}", **env)
        if junit.is_file():
            found = {
                str(each.get("value"))
                for each in ET.parse(junit).iter("property")
                if str(each.get("name")).startswith(("vdist accumulator", "vdist order"))
            }
            print(*(f"  {line}" for line in sorted(found)), sep="\n")


def whole(machine: Machine) -> None:
    all_parts = [machine.folder / f"part{number}" for number in range(1, machine.shards + 1)]
    modes = ("--vdist-split-group=both", "--vdist-compile=all", "--vdist-timeout=120")
    sharing = f"--vdist-runs-per-device={len(machine.parts)}"

    def run(number: int) -> None:
        shard = [f"--vdist-shard={number}/{machine.shards}", sharing] if machine.shards > 1 else []
        machine.pytest(f"whole-{number}", *modes, *shard, "--vdist-certify", str(all_parts[number - 1]))

    with ThreadPoolExecutor(len(machine.parts)) as threads:
        list(threads.map(run, machine.parts))
    vdist = [sys.executable, "-c", "import sys; from pytest_vdist.cli import main; sys.exit(main())"]
    for number in machine.parts:
        if not Path(all_parts[number - 1], "SHA256SUMS").is_file():
            machine.run(f"report-{number}", [*vdist, "report", str(all_parts[number - 1])])
    lacking = [part.name for part in all_parts if not Path(part, "SHA256SUMS").is_file()]
    if lacking:
        print(f"whole: not merged, {', '.join(lacking)} lacking")
        return
    out = str(machine.folder / "whole") if machine.shards > 1 else str(all_parts[0])
    if machine.shards > 1:
        machine.run("merge", [*vdist, "merge", out, *map(str, all_parts)])
    print(machine.run("verify", [*vdist, "verify", out]))


STAGES: dict[str, Callable[[Machine], None]] = {
    stage.__name__: stage for stage in (core, speed, groups, leases, orders, whole)
}


def _chapter(name: str) -> str:
    return str(BENCHMARKS.parent / "suites" / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--backend", default="cuda", help="a device backend, as for --vdist-backend")
    parser.add_argument("--stages", default=",".join(STAGES))
    parser.add_argument("--limit", type=float, default=600.0, help="deadline of each stage, in seconds")
    parser.add_argument("--shards", type=int, default=3, help="parts of the stage whole")
    parser.add_argument(
        "--parts", help="those to run at the same time in this call; core has as many workers (default: all)"
    )
    arguments = parser.parse_args()
    wanted = arguments.stages.split(",")
    unknown = [name for name in wanted if name not in STAGES]
    if unknown:
        parser.error(f"unknown stage {unknown[0]!r} from --stages; the stages are {', '.join(STAGES)}")
    backend = find_backend(arguments.backend, origin="--backend")
    devices = require_devices(backend, origin="--backend").device_count
    every_part = range(1, arguments.shards + 1)
    texts = arguments.parts.split(",") if arguments.parts else list(map(str, every_part))
    wrong = [text for text in texts if text not in map(str, every_part)]
    if wrong or not texts:
        parser.error(
            f"parts must be numbers from 1 to the number of shards, here {arguments.shards}, "
            f"got {wrong[0] if wrong else ''!r} from --parts"
        )
    if len(texts) > MAX_RUNS_PER_DEVICE:
        parser.error(
            f"at most {MAX_RUNS_PER_DEVICE} parts run at once, got {len(texts)}: name some by --parts"
        )
    arguments.folder.mkdir(parents=True, exist_ok=True)
    machine = Machine(
        arguments.folder.resolve(),
        backend.name,
        backend.visible_devices_variable,
        devices,
        arguments.limit,
        arguments.shards,
        tuple(map(int, texts)),
    )
    for name, stage in STAGES.items():
        if name in wanted:
            stage(machine)


if __name__ == "__main__":
    main()
