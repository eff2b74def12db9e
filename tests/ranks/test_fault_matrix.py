"""Every way for a rank to fail, at every stage: the report is right, and the next run clean."""

from __future__ import annotations

import os
import re
import select
import signal
import warnings
from collections.abc import Callable

import pytest
import torch
import torch.distributed as dist

from pytest_vdist import (
    DistributedRun,
    DistributedRunError,
    RankDiedError,
    RanksFailedError,
    RanksHungError,
)
from pytest_vdist.backends.cpu import BACKEND
from pytest_vdist.ranks.messages import WorldSpec
from pytest_vdist.ranks.pool import RankPool
from pytest_vdist.ranks.teams import RankLostWarning
from tests.ranks.fault_kinds import COLLECTIVES, FAULTS, Fault, fail_before_init, fail_inside

ERRORS: dict[str, type[DistributedRunError]] = {
    "died": RankDiedError,
    "raised": RanksFailedError,
    "hung": RanksHungError,
}
WORLD = WorldSpec("cpu", process_group_backend="gloo")
with_each_fault = pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.replace(" ", "_"))
with_world_sizes = pytest.mark.parametrize("size", [2, 4])


def _report(run: Callable[[], object], fault: Fault) -> str:
    with pytest.raises(ERRORS[fault.kind]) as caught:
        run()
    return str(caught.value)


def _timeout(fault: Fault) -> float:
    return 0.4 if fault.kind == "hung" else 30


def _sum() -> float:
    x = torch.ones(1)
    dist.all_reduce(x)
    return x.item()


@with_world_sizes
@with_each_fault
def test_inside_a_collective(distributed_run: DistributedRun, fault: Fault, size: int) -> None:
    def run() -> object:
        return distributed_run(
            fail_inside, fault, COLLECTIVES["all_reduce"], world_size=size, timeout=_timeout(fault)
        )

    report = _report(run, fault)

    assert fault.text in report
    assert "rank 1" in report.splitlines()[0]
    assert "after barrier #1 of group default_pg" in report or fault.kind == "raised"
    assert distributed_run(_sum, world_size=size) == [float(size)] * size


@pytest.mark.parametrize("collective", COLLECTIVES)
@pytest.mark.parametrize("name", ["SIGKILL", "exception", "hang"])
def test_inside_each_collective(distributed_run: DistributedRun, name: str, collective: str) -> None:
    fault = next(fault for fault in FAULTS if fault.name == name)

    def run() -> object:
        return distributed_run(fail_inside, fault, COLLECTIVES[collective], timeout=_timeout(fault))

    report = _report(run, fault)

    assert fault.text in report
    if fault.kind != "died":  # the survivor of a death has left the collective with an error
        assert f"rank 0 is in {collective} #" in report
    assert distributed_run(_sum) == [2.0, 2.0]


@with_world_sizes
@with_each_fault
def test_before_init(distributed_run: DistributedRun, fault: Fault, size: int) -> None:
    def run() -> object:
        return distributed_run(
            fail_before_init, fault, world_size=size, timeout=_timeout(fault), init_process_group=False
        )

    report = _report(run, fault)

    assert fault.text in report
    assert re.search(r"\brank 1 (of|is)\b", report.splitlines()[0])
    assert distributed_run(_sum, world_size=size) == [float(size)] * size


@with_world_sizes
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM], ids=lambda n: n.name)
def test_between_two_runs(distributed_run: DistributedRun, number: signal.Signals, size: int) -> None:
    pids = distributed_run(os.getpid, world_size=size)
    _kill_and_wait(pids[1], number)

    with pytest.warns(RankLostWarning, match=rf"between two runs ended rank 1: killed by {number.name}"):
        results = distributed_run(_sum, world_size=size)

    assert results == [float(size)] * size


@with_world_sizes
@with_each_fault
def test_after_the_last_collective(distributed_run: DistributedRun, fault: Fault, size: int) -> None:
    def body() -> None:
        dist.barrier()
        if dist.get_rank() == 1:
            fault.happen()

    report = _report(lambda: distributed_run(body, world_size=size, timeout=_timeout(fault)), fault)

    assert fault.text in report
    assert "rank 1" in report.splitlines()[0]
    assert distributed_run(_sum, world_size=size) == [float(size)] * size


@with_world_sizes
def test_stopped_between_two_runs(distributed_run: DistributedRun, size: int) -> None:
    pids = distributed_run(os.getpid, world_size=size)
    os.kill(pids[1], signal.SIGSTOP)

    with pytest.raises(RanksHungError) as caught:
        distributed_run(_sum, world_size=size, timeout=0.4)

    assert "the process is stopped (SIGSTOP)" in str(caught.value)
    assert distributed_run(_sum, world_size=size) == [float(size)] * size


@with_world_sizes
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=lambda n: n.name)
def test_during_tear_down(number: signal.Signals, size: int) -> None:
    pool = RankPool(BACKEND, 1)
    pids = pool.run(os.getpid, (), {}, world=WORLD, world_size=size, timeout=30)
    os.kill(pids[1], number)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pool.close()

    assert [pid for pid in pids if os.path.exists(f"/proc/{pid}")] == []


def _kill_and_wait(pid: int, number: signal.Signals) -> None:
    descriptor = os.pidfd_open(pid)
    try:
        os.kill(pid, number)
        assert select.select([descriptor], [], [], 10)[0], f"process {pid} did not end by {number.name}"
    finally:
        os.close(descriptor)
