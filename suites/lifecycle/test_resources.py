"""Open files and threads over many lives of a world."""

from __future__ import annotations

import gc
import os
import threading
import time
from pathlib import Path

import pytest
import torch

from pytest_vdist import DistributedRun, ImplementationSpec, init_settings

CYCLES = 10
WARM_UP_CYCLES = 3
SECONDS_TO_WIND_DOWN = 5.0


def open_files() -> int:
    """Count this process's open files; /dev/fd serves where there is no /proc."""
    folder = Path("/proc/self/fd")
    return len(os.listdir(folder if folder.is_dir() else "/dev/fd"))


def threads() -> int:
    """Count this process's threads, those of libraries too where the kernel lists them."""
    folder = Path("/proc/self/task")
    return len(os.listdir(folder)) if folder.is_dir() else threading.active_count()


def counts() -> tuple[int, int]:
    gc.collect()
    return open_files(), threads()


def counts_within(limits: tuple[int, int]) -> tuple[int, int]:
    """Return (open files, threads) as soon as neither exceeds its limit, at the latest after the deadline.

    Libraries may close connections and end threads in the background.
    """
    deadline = time.monotonic() + SECONDS_TO_WIND_DOWN
    tick = threading.Event()
    now = counts()
    while (now[0] > limits[0] or now[1] > limits[1]) and time.monotonic() < deadline:
        tick.wait(0.01)
        now = counts()
    return now


@pytest.mark.vdist_world_size(max=2)
@pytest.mark.vdist_requirement("VD-INIT-009")
def test_worlds_that_come_and_go_leave_no_files_or_threads(
    distributed_run: DistributedRun, implementation: ImplementationSpec, tmp_path: Path, world_size: int
) -> None:
    """After ten worlds with traffic, a process has no more open files or threads than after three."""

    def live(init_method: str) -> None:
        world = implementation.load()
        world.init(init_settings(init_method))
        group = world.coordinator([list(range(world_size))], name="everyone")
        reduced = group.all_reduce(torch.ones(3, device=group.device))
        assert reduced.tolist() == [float(world_size)] * 3
        group.barrier()
        world.destroy()

    def body(folder: str) -> tuple[tuple[int, int], tuple[int, int]]:
        for cycle in range(WARM_UP_CYCLES):
            live(f"file://{folder}/warm-up-{cycle}")
        before = counts()
        for cycle in range(CYCLES):
            live(f"file://{folder}/{cycle}")
        return before, counts_within(before)

    # New processes: no earlier world of warm ranks may still be winding down at the first count.
    results = distributed_run(
        body, str(tmp_path), world_size=world_size, init_process_group=False, fresh=True
    )
    for rank, (before, after) in enumerate(results):
        grown = {
            what: f"{was} -> {is_}"
            for what, was, is_ in zip(("open files", "threads"), before, after, strict=True)
            if is_ > was
        }
        assert not grown, f"rank {rank}: {CYCLES} worlds left more behind: {grown}"
