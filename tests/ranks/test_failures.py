"""How a run fails: every text names the rank that is to blame, and the next run finds fresh ranks."""

from __future__ import annotations

import ctypes
import os
import signal
import time
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
    current_rank,
)


def _next_run_is_clean(distributed_run: DistributedRun, world_size: int = 2) -> bool:
    def body() -> float:
        x = torch.ones(1)
        dist.all_reduce(x)
        return x.item()

    return distributed_run(body, world_size=world_size) == [float(world_size)] * world_size


def test_an_assert_in_a_rank_shows_its_values_and_the_rank(distributed_run: DistributedRun) -> None:
    def body() -> None:
        got = float(current_rank().rank + 1)
        assert got == 1.0

    with pytest.raises(RanksFailedError) as caught:
        distributed_run(body)

    text = str(caught.value)
    assert text.startswith("rank 1 of 2 raised AssertionError: assert 2.0 == 1.0")
    assert "test_failures.py" in text
    assert "worker.py" not in text
    assert _next_run_is_clean(distributed_run)


def test_equal_exceptions_are_told_once_with_all_ranks(distributed_run: DistributedRun) -> None:
    def body() -> None:
        raise ValueError("no such thing")

    with pytest.raises(RanksFailedError) as caught:
        distributed_run(body, world_size=3)

    text = str(caught.value)
    assert text.startswith("ranks 0, 1, 2 of 3 raised ValueError: no such thing")
    assert text.count("Traceback") == 1


def test_the_first_failure_leads_and_its_consequence_follows(distributed_run: DistributedRun) -> None:
    def body() -> None:
        if current_rank().rank == 1:
            raise KeyError("cause")
        dist.monitored_barrier(timeout=__import__("datetime").timedelta(seconds=0.2))

    with pytest.raises(RanksFailedError) as caught:
        distributed_run(body)

    text = str(caught.value)
    assert text.startswith("rank 1 of 2 raised KeyError: 'cause'; then rank 0 of 2 raised RuntimeError")
    assert "s after the first failure:" in text


def test_a_rank_that_waits_for_a_failed_one_is_shown_where_it_waits(distributed_run: DistributedRun) -> None:
    def body() -> None:
        dist.all_reduce(torch.ones(3))
        if current_rank().rank == 1:
            raise ValueError("boom")
        dist.barrier()

    started = time.monotonic()
    with pytest.raises(RanksFailedError) as caught:
        distributed_run(body, timeout=30)

    assert time.monotonic() - started < 10
    text = str(caught.value)
    assert "rank 0 is in barrier #2 of group default_pg" in text
    assert "stack of rank 0:" in text
    assert " in body" in text
    assert _next_run_is_clean(distributed_run)


def test_a_hang_ends_at_the_deadline_with_every_stack(distributed_run: DistributedRun) -> None:
    def body() -> None:
        dist.all_reduce(torch.ones(3))
        if current_rank().rank == 1:
            time.sleep(60)
        dist.all_reduce(torch.ones(2, 2, dtype=torch.bfloat16))

    started = time.monotonic()
    with pytest.raises(RanksHungError) as caught:
        distributed_run(body, timeout=0.5)

    assert 0.5 <= time.monotonic() - started < 5
    text = str(caught.value)
    assert text.startswith(
        "ranks 0, 1 of 2 have not finished within the timeout of 0.5 s: "
        "rank 0 is in all_reduce #2 of group default_pg of bfloat16[2, 2]; "
        "rank 1 is after all_reduce #1 of group default_pg of float32[3], at body (test_failures.py:"
    )
    assert text.count(" in body") == 2
    assert "_wait_for_end" not in text
    assert _next_run_is_clean(distributed_run)


@pytest.mark.parametrize(
    ("end", "text"),
    [
        (lambda: os._exit(3), "its process exited with code 3"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "killed by SIGKILL"),
        (lambda: os.kill(os.getpid(), signal.SIGSEGV), "killed by SIGSEGV"),
        (os.abort, "killed by SIGABRT"),
    ],
    ids=["exit", "SIGKILL", "SIGSEGV", "SIGABRT"],
)
def test_a_dead_rank_is_named_with_how_it_died_and_its_last_words(
    distributed_run: DistributedRun, end: object, text: str
) -> None:
    def body() -> None:
        dist.barrier()
        if current_rank().rank == 1:
            print("last words")
            end()  # type: ignore[operator]
        dist.all_reduce(torch.ones(1))

    with pytest.raises(RankDiedError) as caught:
        distributed_run(body)

    report = str(caught.value)
    assert report.startswith(f"rank 1 of 2 died: {text}")
    assert "rank 1 died after barrier #1 of group default_pg" in report
    assert "last output of rank 1:\n  last words" in report
    assert _next_run_is_clean(distributed_run)


def test_a_result_that_cannot_travel_is_an_error_of_its_rank(distributed_run: DistributedRun) -> None:
    with pytest.raises(RanksFailedError, match="the function returned a generator that can't be sent"):
        distributed_run(lambda: (x for x in range(3)))


def test_an_exception_that_cannot_be_pickled_is_told_all_the_same(distributed_run: DistributedRun) -> None:
    class Odd(Exception):
        def __init__(self, a: int, b: int) -> None:
            super().__init__(f"{a} and {b}")
            self.generator = (x for x in range(0))

    def body() -> None:
        raise Odd(1, 2)

    with pytest.raises(RanksFailedError, match=r"ranks 0, 1 of 2 raised .*Odd: 1 and 2"):
        distributed_run(body)


def test_a_skip_on_all_ranks_skips_with_its_reason(distributed_run: DistributedRun) -> None:
    with pytest.raises(pytest.skip.Exception, match="too cold"):
        distributed_run(lambda: pytest.skip("too cold"))


def test_a_skip_on_one_rank_is_a_failure_that_names_both_sides(distributed_run: DistributedRun) -> None:
    def body() -> None:
        if current_rank().rank == 1:
            pytest.skip("only me")

    with pytest.raises(RanksFailedError) as caught:
        distributed_run(body)

    text = str(caught.value)
    assert text.startswith("the ranks disagree about skipping: rank 1 skipped, rank 0 did not")


def test_pytest_fail_and_xfail_work_in_ranks(distributed_run: DistributedRun) -> None:
    with pytest.raises(RanksFailedError, match=r"ranks 0, 1 of 2 raised Failed: on purpose"):
        distributed_run(lambda: pytest.fail("on purpose"))
    with pytest.raises(pytest.xfail.Exception, match="known"):
        distributed_run(lambda: pytest.xfail("known"))


def test_ranks_that_cannot_be_told_apart_in_time_still_all_report(distributed_run: DistributedRun) -> None:
    def body() -> None:
        raise ValueError(f"rank {current_rank().rank}")

    with pytest.raises(RanksFailedError) as caught:
        distributed_run(body, world_size=3)

    assert all(f"ValueError: rank {rank}" in str(caught.value) for rank in range(3))


def _reduce_or_wait() -> None:
    if current_rank().rank == 1:
        dist.barrier()
    else:
        dist.all_reduce(torch.ones(2))


def _other_group() -> None:
    groups = [dist.new_group([0, 1], group_desc=f"tp:{n}") for n in range(2)]
    dist.all_reduce(torch.ones(2), group=groups[current_rank().rank])


@pytest.mark.parametrize(
    ("body", "verdict"),
    [
        (
            _reduce_or_wait,
            "mismatched collectives: #1 of group default_pg is all_reduce of float32[2] on rank 0, "
            "barrier on rank 1",
        ),
        (
            _other_group,
            "rank 0 is in all_reduce #1 of group tp:0 of float32[2]; "
            "rank 1 is in all_reduce #1 of group tp:1 of float32[2]",
        ),
    ],
    ids=["operation", "group"],
)
def test_collectives_that_do_not_match_are_named(
    distributed_run: DistributedRun, body: Callable[[], None], verdict: str
) -> None:
    with pytest.raises(RanksHungError) as caught:
        distributed_run(body, timeout=3)

    assert str(caught.value).splitlines()[0].endswith(verdict)


def test_a_shape_that_does_not_match_is_named_beside_the_crash_that_it_causes(
    distributed_run: DistributedRun,
) -> None:
    def body() -> None:
        dist.all_reduce(torch.ones(2 + current_rank().rank))

    with pytest.raises(DistributedRunError) as caught:
        distributed_run(body, timeout=5)

    assert (
        "mismatched collectives: #1 of group default_pg is all_reduce of float32[2] on rank 0, "
        "all_reduce of float32[3] on rank 1"
    ) in str(caught.value)


def test_a_rank_that_holds_the_gil_in_native_code_is_shown_with_its_stack(
    distributed_run: DistributedRun,
) -> None:
    def body() -> None:
        dist.barrier()
        if current_rank().rank == 1:
            libc = ctypes.PyDLL(None)  # PyDLL keeps the GIL during the call
            libc.sleep(60)
        dist.barrier()

    with pytest.raises(RanksHungError) as caught:
        distributed_run(body, timeout=0.5)

    text = str(caught.value)
    assert "rank 0 is in barrier #2 of group default_pg; rank 1 is after barrier #1" in text
    assert "of group default_pg, at body (test_failures.py:" in text
    assert text.count(" in body") == 2
    assert _next_run_is_clean(distributed_run)


def test_a_stopped_rank_is_said_to_be_stopped(distributed_run: DistributedRun) -> None:
    def body() -> None:
        if current_rank().rank == 1:
            os.kill(os.getpid(), signal.SIGSTOP)
        dist.barrier()

    with pytest.raises(RanksHungError, match=r"stack of rank 1:\n  the process is stopped \(SIGSTOP\)"):
        distributed_run(body, timeout=0.5)
    assert _next_run_is_clean(distributed_run)
