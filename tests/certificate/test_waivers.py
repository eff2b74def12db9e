"""Waivers: what may stand in them, which tests they cover, and when they are an error."""

from __future__ import annotations

import datetime as dt

import pytest

from pytest_vdist.certificate.tables import FileError
from pytest_vdist.certificate.waivers import State, Waiver, parse_waivers, state_of

TODAY = dt.date(2026, 11, 22)
WHOLE = """
schema = "vdist-waivers/1"
[[waiver]]
requirement = "VD-AR-002"
tests = ["collectives/test_all_reduce.py::test_sums[*bfloat16*]"]
modes = { split_group = "off", world_size = 4 }
issue = "https://example.org/17"
owner = "me@example.org"
reason = "the ring rounds at every hop"
expires = 2026-12-31
"""


def waiver(text: str = WHOLE) -> Waiver:
    (found,) = parse_waivers(text, source="w.toml")
    return found


@pytest.mark.parametrize(
    ("test", "requirement", "mode", "covered"),
    [
        ("test_sums[cpu-4-bfloat16-x]", "VD-AR-002", {"split_group": "off", "world_size": 4}, True),
        ("test_sums[cpu-4-float16-x]", "VD-AR-002", {"split_group": "off", "world_size": 4}, False),
        ("test_sums[cpu-4-bfloat16-x]", "VD-AR-003", {"split_group": "off", "world_size": 4}, False),
        ("test_sums[cpu-4-bfloat16-x]", "VD-AR-002", {"split_group": "on", "world_size": 4}, False),
        ("test_sums[cpu-4-bfloat16-x]", "VD-AR-002", {"split_group": "off"}, False),
    ],
)
def test_a_waiver_covers_tests_of_its_requirement_by_id_and_mode(
    test: str, requirement: str, mode: dict[str, object], covered: bool
) -> None:
    assert waiver().covers(f"collectives/test_all_reduce.py::{test}", [requirement], mode) is covered


def test_a_waiver_without_tests_and_modes_covers_its_requirement() -> None:
    lines = [line for line in WHOLE.splitlines() if not line.startswith(("tests", "modes"))]
    assert waiver("\n".join(lines)).covers("groups/test_x.py::test_y", ["VD-AR-002"], {})


@pytest.mark.parametrize(
    ("outcomes", "today", "state", "is_error"),
    [
        (["waived", "passed"], TODAY, State.USED, False),
        (["passed", "passed"], TODAY, State.PASSED, True),
        (["waived"], dt.date(2027, 1, 1), State.EXPIRED, True),
        (["waived"], dt.date(2026, 12, 31), State.USED, False),
        ([], TODAY, State.UNMATCHED, True),
        (["not_run"], TODAY, State.NOT_RUN, False),
        (["error"], TODAY, State.USED, False),
    ],
)
def test_the_state_follows_from_the_outcomes_and_the_day(
    outcomes: list[str], today: dt.date, state: State, is_error: bool
) -> None:
    assert state_of(waiver(), outcomes, today) is state
    assert state.is_error is is_error


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("vdist-waivers/1", "x", "w.toml: schema must be 'vdist-waivers/1', got 'x'"),
        ("[[waiver]]", "[[waivers]]", "w.toml: unknown key 'waivers'; did you mean waiver?"),
        (
            "VD-AR-002",
            "VD-AR-999",
            "w.toml: waiver 1: requirement: unknown requirement 'VD-AR-999'; did you mean",
        ),
        ("https:", "ftp:", "w.toml: waiver 1: issue must be the URL of an issue, got 'ftp://example.org/17'"),
        (
            "2026-12-31",
            '"soon"',
            "w.toml: waiver 1: expires must be a date without quotes, 2027-01-31, got 'soon'",
        ),
        ("owner =", "owners =", "w.toml: waiver 1: unknown key 'owners'; did you mean owner?"),
        (
            'reason = "the ring rounds at every hop"',
            "",
            "w.toml: waiver 1: reason is missing; it must be why",
        ),
        ("split_group", "split", "w.toml: waiver 1: modes: unknown key 'split'; did you mean split_group?"),
        ('"off"', "false", "w.toml: waiver 1: modes: split_group must be on or off, got False"),
    ],
)
def test_a_wrong_file_is_refused_with_the_place_and_the_value(old: str, new: str, message: str) -> None:
    assert old in WHOLE
    with pytest.raises(FileError) as caught:
        parse_waivers(WHOLE.replace(old, new, 1), source="w.toml")
    assert message in str(caught.value)


def test_a_file_without_waivers_is_refused() -> None:
    with pytest.raises(FileError, match=r"there is no \[\[waiver\]\]; leave out --vdist-waivers"):
        parse_waivers('schema = "vdist-waivers/1"', source="w.toml")
