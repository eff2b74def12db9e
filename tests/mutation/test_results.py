"""What counts as a kill, and how the matrix reads."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from pytest_vdist.mutation.reports import (
    Summary,
    html_text,
    json_text,
    markdown_text,
    terminal_text,
)
from pytest_vdist.mutation.results import Fate, Kill, Result, fate_of, idle, score, without_void

KILL = Kill(
    "suites/collectives/test_barrier.py::test_a[cpu-2]", ("VD-BAR-001", "VD-BAR-002"), "failed", "<left>"
)
KILLED = Result("noop", "cpu", "barriers", ("VD-BAR-001",), Fate.KILLED, 1.25, 3, KILL)
SURVIVOR = Result("quiet", "cpu", "values", ("VD-AR-001",), Fate.SURVIVED, 80.0, 600)


@pytest.mark.parametrize(
    ("kill", "fate"),
    [
        (None, Fate.SURVIVED),
        (KILL, Fate.KILLED),
        (replace(KILL, how="hang"), Fate.KILLED),
        (replace(KILL, how="died"), Fate.KILLED),
        (replace(KILL, requirements=("VD-AR-001",)), Fate.UNRELATED),
        (replace(KILL, how="error"), Fate.HARNESS),
    ],
)
def test_only_a_judgement_by_a_test_of_the_requirement_is_a_kill(kill: Kill | None, fate: Fate) -> None:
    assert fate_of(("VD-BAR-001",), kill) is fate


def test_a_kill_by_a_test_that_fails_on_the_reference_too_is_void() -> None:
    other = replace(KILLED, backend="simdev")
    void, kept, survivor = without_void([KILLED, other, SURVIVOR], {"cpu": [KILL.test]})
    assert (void.fate, kept.fate, survivor.fate) == (Fate.VOID, Fate.KILLED, Fate.SURVIVED)


def test_a_mutant_counts_for_the_requirements_that_should_notice_it_only() -> None:
    assert KILLED.requirements == ("VD-BAR-001",)
    assert replace(KILLED, fate=Fate.UNRELATED).requirements == ()


def test_the_score_is_the_share_of_kills() -> None:
    assert score([KILLED, SURVIVOR, replace(KILLED, fate=Fate.VOID), KILLED]) == 0.5
    with pytest.raises(ValueError, match="no mutant was run"):
        score([])


def test_a_requirement_that_noticed_nothing_is_idle() -> None:
    assert idle([KILLED, SURVIVOR], ["VD-BAR-001", "VD-BAR-002", "VD-AR-001"]) == ["VD-BAR-002", "VD-AR-001"]


def test_a_result_is_the_same_after_its_way_as_json() -> None:
    for result in (KILLED, SURVIVOR):
        assert Result.from_json(json.loads(json.dumps(result.to_json()))) == result


SUMMARY = Summary.of([KILLED, SURVIVOR], ["VD-BAR-001", "VD-AR-001"], ["split"], 81.4)


def test_the_terminal_shows_the_matrix_and_what_is_wrong() -> None:
    lines = terminal_text(SUMMARY).splitlines()
    assert [line.split() for line in lines[:3]] == [
        ["mutant", "device", "noticed", "by", "test", "how", "seconds"],
        ["noop", "cpu", "VD-BAR-001", "collectives/test_barrier.py::test_a[cpu-2]", "failed", "1.2"],
        ["quiet", "cpu", "survived", "-", "-", "80.0"],
    ]
    assert lines[4:] == [
        "1 of 2 mutants killed, score 50.0 %, 81 s",
        "quiet on cpu survived",
        "    should be noticed by the tests of VD-AR-001",
        "requirements that noticed no mutant: VD-AR-001",
        "not for this device: split",
    ]


def test_a_kill_that_does_not_count_says_where_it_happened() -> None:
    text = terminal_text(Summary.of([replace(KILLED, fate=Fate.UNRELATED)], [], [], 1.0))
    assert f"noop on cpu was killed by an unrelated test in {KILL.test}: <left>" in text


def test_json_has_everything() -> None:
    data = json.loads(json_text(SUMMARY))
    assert data["schema"] == "vdist-mutants/1"
    assert data["score"] == 0.5
    assert [Result.from_json(each) for each in data["results"]] == [KILLED, SURVIVOR]
    assert data["idle_requirements"] == ["VD-AR-001"]
    assert data["not_for_these_devices"] == ["split"]


def test_the_page_needs_no_other_file_and_marks_what_does_not_count() -> None:
    page = html_text(Summary.of([replace(KILLED, fate=Fate.UNRELATED)], [], [], 1.0))
    assert "&lt;left&gt;" in page
    assert "<left>" not in page
    assert page.count("<tr class=bad>") == 1
    assert "http" not in page
    assert "src=" not in page


def test_the_page_of_the_documentation_says_what_is_wrong_with_each() -> None:
    text = markdown_text(SUMMARY, {"noop": "It waits for nobody.", "quiet": "It is small."}.__getitem__)
    assert "### Barriers" in text
    assert "| `noop`: It waits for nobody. | cpu | VD-BAR-001 | failed |" in text
    assert "| `quiet`: It is small. | cpu | survived | - |" in text
