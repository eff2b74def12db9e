from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable

import pytest
import torch

from pytest_vdist.faults.calls import CALLS, call_named, calls_under
from pytest_vdist.faults.record import PROPERTY, Recorder
from pytest_vdist.faults.verdicts import survivor_problem, timeout_problem, unnoticed_problem, wording_problem
from pytest_vdist.faults.waits import Ended, Limit, attempt, attempt_together

LIMIT = Limit(2.0, slack=5.0)
ALL_REDUCE, BARRIER, SEND = call_named("all_reduce"), call_named("barrier"), call_named("send")
SUM_OF_TWO = [300.0, 302.0]


def raised(seconds: float, kinds: tuple[str, ...] = ("RuntimeError", "Exception")) -> Ended:
    return Ended("all_reduce", seconds, error="RuntimeError: Timed out", kinds=kinds)


@pytest.mark.parametrize("seconds", [1.95, 2.0, 6.9])
def test_a_call_that_ends_by_its_limit_is_right(seconds: float) -> None:
    assert timeout_problem(ALL_REDUCE, raised(seconds), LIMIT) == ""


@pytest.mark.parametrize(
    ("ended", "problem"),
    [
        (
            raised(0.002),
            "all_reduce ended after 0.00 s, before its limit of 2 s (timeout): RuntimeError: Tim",
        ),
        (
            raised(7.1),
            "all_reduce ended after 7.10 s, and its limit is 2 s (timeout): RuntimeError: Timed out",
        ),
        (Ended("all_reduce", math.inf), "all_reduce had not ended long after its limit of 2 s (timeout)"),
        (Ended("all_reduce", 2.0, [1.0]), "all_reduce returned [1.0] though no other rank took part"),
        (
            raised(2.0, ("KeyError",)),
            "all_reduce raised what is no error of communication: RuntimeError: Timed",
        ),
    ],
)
def test_a_call_that_ends_otherwise_is_told_with_operation_limit_and_time(ended: Ended, problem: str) -> None:
    assert timeout_problem(ALL_REDUCE, ended, LIMIT).startswith(problem)


def test_a_buffered_call_may_return_but_not_late() -> None:
    assert timeout_problem(SEND, Ended("send", 0.1), LIMIT) == ""
    assert timeout_problem(SEND, Ended("send", 7.5), LIMIT) == (
        "send ended after 7.50 s, and its limit is 2 s (timeout): it returned"
    )


@pytest.mark.parametrize(
    ("error", "missing"),
    [
        ("all_reduce in group 'tp:2' on rank 3 did not finish within 2 s", ""),
        ("gather in group 'tp:2' on rank 3 did not finish within 2 s", "the operation all_reduce"),
        ("all_reduce on rank 3 did not finish within 2 s", "the group 'tp:2'"),
        ("all_reduce in group 'tp:2' did not finish within 2 s", "the rank 3"),
        ("all_reduce in group 'tp:2' on rank 3 did not finish", "the limit of 2 s"),
        ("all_reduce in group 'tp:2' on rank 3: 2000ms", "the limit of 2 s"),
    ],
)
def test_what_an_error_does_not_name_is_named(error: str, missing: str) -> None:
    ended = Ended("all_reduce", 2.0, error=error, kinds=("RuntimeError",))
    problem = wording_problem(ALL_REDUCE, ended, "tp:2", 3, LIMIT)
    assert (f"does not name {missing}:" in problem) if missing else problem == ""


@pytest.mark.parametrize(
    ("call", "ended", "problem"),
    [
        ("all_reduce", raised(0.01), ""),
        ("all_reduce", Ended("all_reduce", 0.01, SUM_OF_TWO), ""),
        (
            "all_reduce",
            Ended("all_reduce", 0.01, [100.0, 101.0]),
            "all_reduce returned wrong data: [100.0, 101",
        ),
        ("barrier", Ended("barrier", 0.01), "barrier returned though a rank had not come"),
        ("gather", Ended("gather", 0.01), "gather returned wrong data: None"),
        ("all_reduce", Ended("all_reduce", math.inf), "all_reduce had not ended long after its limit"),
        (
            "all_reduce",
            raised(0.0, ("AttributeError",)),
            "all_reduce raised what is no error of communication",
        ),
    ],
)
def test_survivors_get_an_error_or_the_right_data(call: str, ended: Ended, problem: str) -> None:
    found = survivor_problem(call_named(call), ended, LIMIT, world_size=2, rank=0, peer=1)
    assert found.startswith(problem)
    assert bool(found) == bool(problem)


def test_a_fault_that_every_rank_took_for_success_is_told() -> None:
    both = [Ended("broadcast", 0.0, [1.0]), Ended("broadcast", 0.0, [2.0])]
    assert unnoticed_problem("root: broadcast", both) == (
        "root: broadcast returned on every rank, and nobody noticed: [[1.0], [2.0]]"
    )
    assert unnoticed_problem("root: broadcast", [both[0], raised(2.0)]) == ""


def test_calls_at_the_same_time_end_each_in_its_own_way_and_an_endless_one_is_told() -> None:
    release = threading.Event()

    def refuse() -> None:
        raise ConnectionError("gone")

    calls: list[tuple[str, Callable[[], object]]] = [
        ("wait", release.wait),
        ("refuse", refuse),
        ("return", lambda: 7),
    ]
    endless, refused, returned = attempt_together(calls, torch.device("cpu"), patience=0.2)
    release.set()
    assert (endless.endless, endless.raised) == (True, False)
    assert (refused.error, "OSError" in refused.kinds) == ("ConnectionError: gone", True)
    assert (returned.value, returned.raised) == (7, False)


def test_the_table_has_a_row_for_each_call() -> None:
    properties: list[tuple[str, object]] = []
    ended = [raised(2.0004), Ended("barrier", math.inf), attempt("gather", lambda: None)]
    Recorder(properties).add("killed", 1, ended)
    ((name, text),) = properties
    assert name == PROPERTY
    rows = json.loads(str(text))
    assert rows[:2] == [
        ["killed", "all_reduce", 1, 2.0, "RuntimeError"],
        ["killed", "barrier", 1, None, "endless"],
    ]
    assert rows[2][-1] == "returned"


def test_every_call_is_under_one_of_the_two_limits() -> None:
    assert {*calls_under("timeout"), *calls_under("cpu_timeout")} == set(CALLS)
    assert len({call.name for call in CALLS}) == len(CALLS)
