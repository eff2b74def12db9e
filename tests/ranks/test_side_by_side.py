"""Sessions and xdist workers on one machine: no port clash, no device used twice, nobody waits for ever."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

# Each rank marks its device as in use for the time of its run; the mark cannot be made twice.
TESTS = """
import os
import pytest
import torch.distributed as dist

def use(folder):
    number = os.environ["SIMDEV_VISIBLE_DEVICES"].split(",")[int(os.environ["LOCAL_RANK"])]
    mark = os.path.join(folder, number)
    os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
    try:
        dist.barrier()
        return number
    finally:
        os.unlink(mark)

@pytest.mark.parametrize("turn", range(3))
@pytest.mark.parametrize("ranks", [2, 4])
def test_use(distributed_run, ranks, turn):
    numbers = distributed_run(use, os.environ["MARKS"], world_size=ranks)
    assert len(set(numbers)) == ranks
    with open(os.environ["USED"], "a") as used:
        used.write(" ".join(numbers) + "\\n")
"""


def _session(folder: Path, workers: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--vdist-backend=simdev"]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("VDIST_")},
        "MARKS": str(folder / "marks"),
        "USED": str(folder / "used"),
        "SIMDEV_COUNT": "4",
    }
    return subprocess.Popen(
        [*command, f"-n{workers}", "test_use.py"],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def test_two_sessions_of_several_workers_use_no_device_twice(tmp_path: Path) -> None:
    (tmp_path / "test_use.py").write_text(TESTS)
    (tmp_path / "marks").mkdir()

    sessions = [_session(tmp_path, workers) for workers in (2, 2)]
    outputs = [session.communicate(timeout=300)[0] for session in sessions]

    for session, output in zip(sessions, outputs, strict=True):
        assert session.returncode == 0, output
        assert "6 passed" in output
    used = [line.split() for line in (tmp_path / "used").read_text().splitlines()]
    assert len(used) == 12
    assert {number for numbers in used if len(numbers) == 4 for number in numbers} == {"0", "1", "2", "3"}
    assert len({tuple(numbers) for numbers in used if len(numbers) == 2}) > 1  # runs of two shared the four
