"""Nothing is left behind, however the controller ends."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

HUNG = """
import os, subprocess, threading
import torch.distributed as dist

def hang():
    dist.barrier()
    child = subprocess.Popen(["sleep", "300"])
    with open(os.environ["READY"], "w") as ready:
        ready.write(f"{os.getpid()} {os.getppid()} {child.pid}\\n")
    threading.Event().wait()

def test_hung(distributed_run):
    distributed_run(hang, world_size=2, timeout=100)
"""

HUNG_SIDE_BY_SIDE = """
import os, subprocess, threading

def hang():
    child = subprocess.Popen(["sleep", "300"])
    with open(os.environ["READY"], "w") as ready:
        ready.write(f"{os.getpid()} {os.getppid()} {child.pid}\\n")
    threading.Event().wait()

def test_hung(outcomes_side_by_side):
    outcomes_side_by_side(hang, [(), ()], world_size=1, timeout=100)
"""

PASSING = """
def test_passing(distributed_run):
    distributed_run(lambda: None, world_size=2)
"""


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Give a folder whose path is short enough for sockets, which pytest's are not under xdist."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="t") as folder:
        yield Path(folder)


@contextmanager
def _controller_with_hung_ranks(
    tmp_path: Path, temporary: Path, source: str
) -> Iterator[tuple[subprocess.Popen[bytes], list[int]]]:
    """Start a pytest whose two ranks hang; give it, and the processes that it has started."""
    (tmp_path / "test_hung.py").write_text(source)
    fifo = tmp_path / "ready"
    os.mkfifo(fifo)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_hung.py"]
    command = ["env", "--default-signal=INT", *command]  # jobs in the background of a shell ignore Ctrl-C
    environment = {**os.environ, "READY": str(fifo), "TMPDIR": str(temporary)}
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield process, _announced(reader, 2)
    finally:
        process.kill()
        process.wait()
        os.close(reader)


def _announced(reader: int, count: int) -> list[int]:
    text = ""
    while text.count("\n") < count:
        assert select.select([reader], [], [], 60)[0], "the ranks did not start"
        with contextlib.suppress(BlockingIOError):  # a rank has opened the pipe, but not written to it yet
            text += os.read(reader, 1000).decode()
    return sorted({int(pid) for pid in text.split()})


def _wait_for_end(pid: int) -> bool:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], 5)[0])
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(
    ("how", "source"),
    [
        pytest.param(signal.SIGKILL, HUNG, id="SIGKILL"),
        pytest.param(signal.SIGTERM, HUNG, id="SIGTERM"),
        pytest.param(signal.SIGINT, HUNG, id="SIGINT"),
        pytest.param(signal.SIGINT, HUNG_SIDE_BY_SIDE, id="SIGINT-side-by-side"),
    ],
)
def test_nothing_survives_a_controller_that_is_ended(
    tmp_path: Path, temporary: Path, how: signal.Signals, source: str
) -> None:
    shared_memory_before = set(os.listdir("/dev/shm"))
    with _controller_with_hung_ranks(tmp_path, temporary, source) as (controller, started):
        assert len(started) == 5  # two ranks, a process that each has started, and their fork server
        controller.send_signal(how)

        assert controller.wait(60) != 0
        assert [pid for pid in started if not _wait_for_end(pid)] == []
    assert set(os.listdir("/dev/shm")) <= shared_memory_before
    assert [str(path) for path in temporary.rglob("*")] == []


def test_a_passing_session_leaves_no_files(tmp_path: Path, temporary: Path) -> None:
    (tmp_path / "test_passing.py").write_text(PASSING)
    shared_memory_before = set(os.listdir("/dev/shm"))

    session = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_passing.py"],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(temporary)},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert session.returncode == 0, session.stdout
    assert [str(path) for path in temporary.rglob("*")] == []
    assert set(os.listdir("/dev/shm")) <= shared_memory_before


def test_a_process_that_a_passing_function_leaves_ends_with_its_rank(tmp_path: Path, temporary: Path) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    (tmp_path / "test_child.py").write_text(f"""
import pathlib
import subprocess

def test_child(distributed_run):
    def body():
        child = subprocess.Popen(["sleep", "600"])
        (pathlib.Path({str(notes)!r}) / str(child.pid)).touch()

    distributed_run(body)
""")

    session = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_child.py"],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(temporary)},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert session.returncode == 0, session.stdout
    started = [int(name) for name in os.listdir(notes)]
    assert len(started) == 2
    assert [pid for pid in started if not _wait_for_end(pid)] == []


def test_a_temporary_folder_with_a_long_path_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "test_passing.py").write_text(PASSING)
    long = tmp_path / ("x" * 100)
    long.mkdir()

    session = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_passing.py"],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(long)},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert session.returncode == 0, session.stdout
