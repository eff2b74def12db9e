"""Ranks that wait for each other by a file."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from pathlib import Path

from pytest_vdist.faults.meeting import Meeting

NEVER = 60.0


def test_a_rank_outlasts_one_that_comes(tmp_path: Path) -> None:
    here, there = (Meeting(str(tmp_path / "meeting"), rank) for rank in range(2))
    later = threading.Timer(0.2, there.arrive, ["done"])
    start = time.monotonic()
    later.start()
    here.outlast("done", {1: os.getpid()}, NEVER)
    assert 0.2 <= time.monotonic() - start < NEVER
    assert there.await_ranks("done", [0]) == {0: ""}
    later.join()


def test_a_rank_outlasts_one_whose_process_ends(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "0.2"]) as process:
        start = time.monotonic()
        Meeting(str(tmp_path / "meeting"), 0).outlast("done", {1: process.pid}, NEVER)
        assert 0.1 <= time.monotonic() - start < NEVER
    Meeting(str(tmp_path / "meeting"), 0).outlast("done", {1: process.pid}, NEVER)


def test_a_rank_waits_for_no_longer_than_it_may(tmp_path: Path) -> None:
    start = time.monotonic()
    Meeting(str(tmp_path / "meeting"), 0).outlast("done", {1: os.getpid(), 2: os.getpid()}, 0.3)
    assert 0.3 <= time.monotonic() - start < NEVER
