from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

from pytest_vdist import DistributedRun, current_rank
from pytest_vdist.reference_impl.agreement import agree

LIMIT = timedelta(seconds=20)


def told(error: BaseException) -> tuple[str, str]:
    return type(error).__name__, str(error)


def test_ranks_that_agree_get_a_number_that_is_the_same_and_new(distributed_run: DistributedRun) -> None:
    def body() -> list[int]:
        return [agree("the groups", None, LIMIT) for _ in range(3)]

    first, *others = distributed_run(body, world_size=3)
    assert len(set(first)) == 3
    assert others == [first, first]


def test_plans_that_differ_are_refused_on_every_rank_naming_who_has_which(
    distributed_run: DistributedRun,
) -> None:
    def body() -> tuple[str, str]:
        try:
            agree("thirds" if current_rank().rank == 1 else "halves", None, LIMIT)
        except ValueError as error:
            return told(error)
        return "", ""

    refusal = (
        "the ranks are not about to make the same groups: rank(s) [0, 2] make halves; "
        "rank(s) [1] make thirds; pass the same lists on every rank, in the same order"
    )
    assert distributed_run(body, world_size=3) == [("ValueError", refusal)] * 3


def test_what_keeps_some_ranks_is_told_to_all(distributed_run: DistributedRun) -> None:
    def body() -> tuple[str, str]:
        here = current_rank().rank
        try:
            agree("halves", f"there is no device {here}" if here else None, LIMIT)
        except RuntimeError as error:
            return told(error)
        return "", ""

    assert distributed_run(body, world_size=3) == [
        ("RuntimeError", "cannot make halves: on rank(s) [1, 2] there is no device 1"),
        ("RuntimeError", "cannot make halves: there is no device 1"),
        ("RuntimeError", "cannot make halves: there is no device 2"),
    ]


def test_a_rank_that_does_not_come_is_named_when_the_time_is_over(distributed_run: DistributedRun) -> None:
    def body() -> tuple[Any, float]:
        start = time.monotonic()
        if current_rank().rank == 1:
            return None, 0.0
        try:
            agree("halves", None, timedelta(seconds=0.5))
        except RuntimeError as error:
            return str(error), time.monotonic() - start
        return "", 0.0

    # Fresh ranks: afterwards they have not agreed equally often.
    by_rank = distributed_run(body, world_size=3, fresh=True)
    for rank in (0, 2):
        error, seconds = by_rank[rank]
        assert error.startswith("rank(s) [1] did not come within 0.5 seconds to make halves: every rank")
        assert 0.5 <= seconds < 5
