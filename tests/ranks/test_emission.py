"""Output, warnings and log records of ranks reach the test, with the rank's label."""

from __future__ import annotations

import logging
import sys
import warnings

import pytest

from pytest_vdist import DistributedRun, RanksFailedError, current_rank


class OwnWarning(UserWarning):
    pass


def test_output_is_labelled_by_rank(
    distributed_run: DistributedRun, capsys: pytest.CaptureFixture[str]
) -> None:
    def body() -> None:
        print(f"out {current_rank().rank}\nsecond line")
        print("problem", file=sys.stderr)

    distributed_run(body)

    captured = capsys.readouterr()
    assert captured.out.splitlines() == [
        "[rank 0] out 0",
        "[rank 0] second line",
        "[rank 1] out 1",
        "[rank 1] second line",
    ]
    assert captured.err.splitlines() == ["[rank 0] problem", "[rank 1] problem"]


def test_equal_warnings_of_ranks_become_one(distributed_run: DistributedRun) -> None:
    with pytest.warns(OwnWarning) as caught:
        distributed_run(lambda: warnings.warn("careful", OwnWarning, stacklevel=1))

    assert [str(w.message) for w in caught] == ["[ranks 0, 1] careful"]
    assert caught[0].filename == __file__


def test_a_warning_of_one_rank_names_it(distributed_run: DistributedRun) -> None:
    def body() -> None:
        if current_rank().rank == 1:
            warnings.warn("mine", UserWarning, stacklevel=1)

    with pytest.warns(UserWarning, match=r"^\[rank 1\] mine$"):
        distributed_run(body)


def test_a_filter_that_makes_errors_of_warnings_holds_in_ranks(distributed_run: DistributedRun) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", OwnWarning)
        with pytest.raises(RanksFailedError, match="raised OwnWarning: stop"):
            distributed_run(lambda: warnings.warn("stop", OwnWarning, stacklevel=1))


def test_log_records_reach_the_loggers_of_the_test(
    distributed_run: DistributedRun, caplog: pytest.LogCaptureFixture
) -> None:
    def body() -> None:
        logging.getLogger("app").info("value %d", current_rank().rank)
        logging.getLogger("app").debug("not wanted")

    with caplog.at_level(logging.INFO, logger="app"):
        distributed_run(body)

    assert sorted(caplog.messages) == ["[rank 0] value 0", "[rank 1] value 1"]
    assert {record.name for record in caplog.records} == {"app"}
