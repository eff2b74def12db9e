"""The ledger of collectives: what the controller reads, and what it concludes."""

from __future__ import annotations

import mmap

import pytest

from pytest_vdist.ranks.ledger import LEDGER_BYTES, LedgerEntry, LedgerPage, first_mismatch


def _entry(operation: str = "all_reduce", number: int = 1, **fields: str) -> LedgerEntry:
    values = {"group": "tp:0", "group_key": "1", "detail": "", "tensors": "float32[4]", **fields}
    return LedgerEntry(operation=operation, number=number, **values)


@pytest.fixture
def page() -> LedgerPage:
    return LedgerPage(mmap.mmap(-1, LEDGER_BYTES))


def test_an_empty_ledger_reads_as_nothing(page: LedgerPage) -> None:
    assert page.read().last is None
    assert page.read().entries == ()


def test_what_was_entered_is_read_until_left(page: LedgerPage) -> None:
    page.enter(_entry())
    assert (page.read().last, page.read().inside) == (_entry(), True)

    page.leave()

    assert (page.read().last, page.read().inside) == (_entry(), False)


def test_waiting_for_earlier_work_reads_as_inside_it(page: LedgerPage) -> None:
    first = page.enter(_entry(number=1))
    page.leave()
    page.enter(_entry(number=2))
    page.leave()

    page.reenter(first)

    assert (page.read().last, page.read().inside) == (_entry(number=1), True)
    assert [entry.number for entry in page.read().entries] == [1, 2]


def test_only_the_last_entries_are_kept(page: LedgerPage) -> None:
    for number in range(1, 201):
        page.enter(_entry(number=number))

    assert [entry.number for entry in page.read().entries] == list(range(137, 201))


def test_an_entry_longer_than_its_slot_does_no_harm(page: LedgerPage) -> None:
    page.enter(_entry(group="x" * 1000))
    page.enter(_entry(number=2, tensors="float32" + str([1] * 200)))

    assert page.read().inside
    assert len(page.read().entries) <= 1


def test_a_new_run_begins_with_an_empty_ledger(page: LedgerPage) -> None:
    page.enter(_entry())

    page.clear()

    assert page.read().entries == ()


@pytest.mark.parametrize(
    ("other", "text"),
    [
        (
            _entry("barrier", tensors=""),
            "all_reduce of float32[4] on rank 0, barrier on rank 1",
        ),
        (
            _entry(tensors="int64[4]"),
            "all_reduce of float32[4] on rank 0, all_reduce of int64[4] on rank 1",
        ),
        (
            _entry(detail="with MAX"),
            "all_reduce of float32[4] on rank 0, all_reduce with MAX of float32[4] on rank 1",
        ),
    ],
    ids=["operation", "dtype", "reduction"],
)
def test_the_first_difference_between_ranks_is_named(other: LedgerEntry, text: str) -> None:
    histories = {0: [_entry(), _entry(number=2)], 1: [other, _entry("gather", number=2)]}

    assert first_mismatch(histories) == f"mismatched collectives: #1 of group tp:0 is {text}"


def test_ranks_of_other_groups_and_shapes_that_may_differ_are_no_mismatch() -> None:
    histories = {
        0: [_entry(), _entry("all_gather", 2, tensors="float32[1]"), _entry("send", 3)],
        1: [_entry(), _entry("all_gather", 2, tensors="float32[9]"), _entry("recv", 3)],
        2: [_entry("barrier", group_key="2")],
    }

    assert first_mismatch(histories) == ""
