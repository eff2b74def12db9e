"""Debugging inside a rank, at the terminal of pytest."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FAILING = """
def body():
    import torch.distributed as dist
    got = dist.get_rank() * 10
    print("computed", got)
    assert got == 0

def test_failing(distributed_run):
    distributed_run(body, timeout=2)
"""

BREAKPOINT = """
def body(value):
    import torch.distributed as dist
    if dist.get_rank() == 1:
        breakpoint()
    dist.barrier()
    return value

def test_breakpoint(distributed_run):
    assert distributed_run(body, 5, timeout=2) == [5, 6]
"""


def _pytest(folder: Path, source: str, typed: str, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_it.py").write_text(source)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    return subprocess.run(
        command, cwd=folder, input=typed, capture_output=True, text=True, timeout=120, check=False
    )


def test_pdb_lands_in_the_failing_frame_of_the_failing_rank(tmp_path: Path) -> None:
    result = _pytest(tmp_path, FAILING, "p 'seen', got\nq\nq\n", "--pdb")

    assert "computed 10" in result.stdout
    assert "AssertionError: assert 10 == 0" in result.stdout
    assert "(rank 1) ('seen', 10)" in result.stdout
    assert "1 failed" in result.stdout


def test_a_breakpoint_in_a_rank_stops_there_and_the_run_goes_on(tmp_path: Path) -> None:
    result = _pytest(tmp_path, BREAKPOINT, "p 'seen', value\nvalue = 6\nc\n")

    assert "(rank 1) ('seen', 5)" in result.stdout
    assert "1 passed" in result.stdout


def test_time_at_the_terminal_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(BREAKPOINT)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        shown = ""
        while not shown.endswith("(rank 1) "):
            shown += process.stdout.read(1)
        try:
            process.wait(3)  # longer than the timeout of the run
        except subprocess.TimeoutExpired:
            shown, _ = process.communicate("value = 6\nc\n", timeout=60)

    assert "1 passed" in shown


def test_without_input_the_debugger_quits_and_the_test_fails(tmp_path: Path) -> None:
    result = _pytest(tmp_path, BREAKPOINT, "")

    assert result.returncode == 1
    assert "rank 1 of 2 raised BdbQuit" in result.stdout
