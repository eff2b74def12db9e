"""Verdicts of profiles, from results that are made up."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_vdist.certificate.outcomes import RANKS_PER_DEVICE, Outcome, worst_code
from pytest_vdist.certificate.requirements import parse_registry
from pytest_vdist.certificate.verdict import Circumstances, exit_code, judge, profiles_of

KNOWN = parse_registry(
    """
schema = "vdist-requirements/1"
spec_version = "2026.1"
[areas]
AR = "All-reduce"
SPL = "Splitting"
CMP = "Compiler"
[profiles]
core = "c"
split = "s"
compile = "k"
numerics = "n"
[area_profiles]
AR = ["core"]
SPL = ["core", "split"]
CMP = ["compile"]
[rationales]
AR = "r"
SPL = "r"
CMP = "r"
"""
    + "".join(
        f'[{id_}]\nlevel = "{level}"\nchapter = "x"\nmin_world_size = 1\ntext = "t"\n'
        for id_, level in (
            ("VD-AR-001", "MUST"),
            ("VD-AR-002", "SHOULD"),
            ("VD-SPL-001", "MUST"),
            ("VD-CMP-001", "MUST"),
        )
    ),
    source="made up",
)


def result(
    requirement: str, outcome: str = "passed", split_group: str | None = None, compile_mode: str | None = None
) -> dict[str, Any]:
    mode = {"backend": "cpu", "split_group": split_group, "compile": compile_mode}
    return {
        "test": f"x/test_x.py::test_{outcome}",
        "requirements": [requirement],
        "outcome": outcome,
        "mode": mode,
    }


FINE = [result("VD-AR-001"), result("VD-AR-002"), result("VD-SPL-001")]


def core(results: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    return judge(results, Circumstances(("core",), **changes), KNOWN)["core"]


def code(
    results: list[dict[str, Any]], *, pytest_code: int = 0, waivers: bool = False, **changes: Any
) -> int:
    entry = core(results, **changes)
    return exit_code(
        results,
        {"core": entry},
        pytest_code=pytest_code,
        waivers_in_error=waivers,
        controls_missed=bool(changes.get("void")),
    )


def test_all_that_must_pass_and_did_is_conformant() -> None:
    entry = core(FINE)
    assert (entry["verdict"], entry["counts"], code(FINE)) == ("conformant", {"passed": 3}, 0)


@pytest.mark.parametrize(
    ("outcome", "verdict", "expected"),
    [
        ("failed", "non_conformant", 1),
        ("hang", "non_conformant", 12),
        ("crash", "non_conformant", 12),
        ("flaky", "non_conformant", 13),
        ("error", "error", 1),
        ("not_run", "incomplete", 10),
        ("unsupported", "conformant", 0),
        ("waived", "conformant_with_waivers", 0),
    ],
)
def test_one_more_test_of_a_must_decides(outcome: str, verdict: str, expected: int) -> None:
    results = [*FINE, result("VD-AR-001", outcome)]
    assert core(results)["verdict"] == verdict
    assert (
        code(results, pytest_code=int(outcome in {"failed", "hang", "crash", "flaky", "error"})) == expected
    )


def test_tests_whose_ranks_shared_devices_leave_the_profile_incomplete() -> None:
    shared = {**result("VD-AR-001"), "properties": {RANKS_PER_DEVICE: 2}}
    entry = core([*FINE, shared])
    assert (entry["verdict"], code([*FINE, shared])) == ("incomplete", 10)
    assert entry["incomplete_because"] == ["tests whose ranks shared devices: 1"]
    failed = {**shared, "outcome": "failed"}
    assert core([*FINE, failed])["verdict"] == "non_conformant"


def test_a_requirement_of_which_everything_is_unsupported_makes_the_profile_partial() -> None:
    entry = core([FINE[0], FINE[1], result("VD-SPL-001", "unsupported")])
    assert (entry["verdict"], entry["unsupported"]) == ("partial", ["VD-SPL-001"])


def test_a_requirement_without_any_result_is_missing() -> None:
    entry = core(FINE[:2])
    assert (entry["verdict"], entry["missing"], code(FINE[:2])) == ("incomplete", ["VD-SPL-001"], 10)


def test_a_should_that_fails_is_told_and_does_not_gate() -> None:
    results = [FINE[0], result("VD-AR-002", "failed"), FINE[2]]
    entry = core(results)
    assert (entry["verdict"], entry["failed"], entry["should_failed"]) == ("conformant", [], ["VD-AR-002"])
    assert code(results, pytest_code=1) == 0


def test_a_failure_is_worse_than_what_is_missing_and_what_is_void_is_worse_than_both() -> None:
    results = [result("VD-AR-001", "failed")]
    assert core(results)["verdict"] == "non_conformant"
    assert core(results, void=["a control mutant passed"])["verdict"] == "error"
    assert code(results) == 1
    assert code(FINE, void=["a control mutant passed"]) == 15


def test_what_was_left_out_makes_its_profile_or_all_of_them_incomplete() -> None:
    entry = core(FINE, left_out={"core": ["world size 3 was left out"]})
    assert (entry["verdict"], entry["incomplete_because"]) == ("incomplete", ["world size 3 was left out"])
    assert core(FINE, left_out={"": ["interrupted"]})["verdict"] == "incomplete"
    assert core(FINE, left_out={"split": ["something else"]})["verdict"] == "conformant"


def test_a_claim_that_a_probe_refutes_speaks_against_numerics() -> None:
    results = [*FINE]
    profiles = judge(results, Circumstances(("numerics",), contradictions=["order"]), KNOWN)
    assert profiles["numerics"]["verdict"] == "non_conformant"
    ended = exit_code(results, profiles, pytest_code=0, waivers_in_error=True, controls_missed=True)
    assert ended == 16


def test_an_empty_session_never_ends_well() -> None:
    assert code([]) == 10
    assert code([], pytest_code=5) == 5
    assert exit_code([], {}, pytest_code=0, waivers_in_error=False, controls_missed=False) == 10


def test_a_part_is_blamed_for_what_it_should_have_tested_alone() -> None:
    def ended(results: list[Any], **circumstances: Any) -> tuple[int, list[str]]:
        known = Circumstances(("core",), part="shard 1 of 2", **circumstances)
        core = judge(results, known, KNOWN)["core"]
        assert core["verdict"] == "incomplete"
        assert core["incomplete_because"][-1] == "shard 1 of 2"
        profiles = {"core": core}
        code = exit_code(
            results, profiles, pytest_code=0, waivers_in_error=False, controls_missed=False, part=True
        )
        return code, core["missing"]

    passed, skipped = result("VD-AR-001", "passed"), result("VD-AR-001", "not_run")
    assert ended([passed]) == (0, [])
    assert ended([]) == (0, [])
    assert ended([skipped]) == (10, ["VD-AR-001"])
    assert ended([passed], left_out={"": ["world sizes 3, 4"]}) == (10, [])


def test_waivers_in_error_have_a_code_of_their_own() -> None:
    assert code(FINE, waivers=True) == 11


@pytest.mark.parametrize(
    ("requirement", "split_group", "compile_mode", "expected"),
    [
        ("VD-AR-001", None, None, {"core"}),
        ("VD-AR-001", "on", None, {"split"}),
        ("VD-AR-001", "on", "inductor", {"split", "compile"}),
        ("VD-SPL-001", None, None, {"core", "split"}),
        ("VD-SPL-001", "off", None, {"core"}),
        ("VD-CMP-001", None, "eager", set()),
        ("VD-CMP-001", None, "inductor", {"compile"}),
        ("VD-CMP-001", None, None, {"compile"}),
    ],
)
def test_a_test_counts_for_the_profiles_of_its_requirements_and_its_mode(
    requirement: str, split_group: str | None, compile_mode: str | None, expected: set[str]
) -> None:
    mode = {"split_group": split_group, "compile": compile_mode}
    assert profiles_of([requirement], mode, KNOWN) == expected


def test_outcomes_stand_in_order_of_severity_and_codes_in_that_of_priority() -> None:
    assert next(iter(Outcome)) == "not_run"
    assert list(Outcome)[-1] == "error"
    assert [worst_code({0, 1, 12}), worst_code({11, 10}), worst_code({15, 16}), worst_code({3, 12})] == [
        12,
        10,
        16,
        3,
    ]
    assert worst_code(set()) == 0
    assert worst_code({1, 99}) == 99
