"""Requirement -> tests -> mutants, and back."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_vdist.certificate.requirements import Level, Requirement, registry
from pytest_vdist.certificate.suites import SUITES
from pytest_vdist.mutation.traceability import WITHOUT_MUTANT, without_mutant, without_test
from pytest_vdist.reference_impl.mutants import MUTANTS, Mutant
from pytest_vdist.suite_items import REQUIREMENT_MARKER

MODULES = sorted(SUITES.glob("*/test_*.py"))
REQUIREMENTS = registry().requirements


def markers(node: ast.AST) -> set[str]:
    """Return the ids of all requirement markers within a piece of source."""
    return {
        argument.value
        for call in ast.walk(node)
        if isinstance(call, ast.Call) and getattr(call.func, "attr", "") == REQUIREMENT_MARKER
        for argument in call.args
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    }


def suite_tests(module: Path) -> Iterator[tuple[str, set[str]]]:
    """Yield every test of a module with its requirements."""
    tree = ast.parse(module.read_text(encoding="utf-8"))
    for_all = {
        id_
        for statement in tree.body
        if isinstance(statement, ast.Assign) and getattr(statement.targets[0], "id", "") == "pytestmark"
        for id_ in markers(statement)
    }
    for statement in tree.body:
        if isinstance(statement, ast.FunctionDef) and statement.name.startswith("test_"):
            yield statement.name, for_all | markers(statement)


TESTS = {
    f"{module.parent.name}/{module.name}::{name}": ids
    for module in MODULES
    for name, ids in suite_tests(module)
}


def test_every_requirement_of_level_must_has_a_test() -> None:
    assert without_test(REQUIREMENTS, [id_ for ids in TESTS.values() for id_ in ids]) == []


def test_every_requirement_of_level_must_has_a_mutant_or_a_reason() -> None:
    assert without_mutant(REQUIREMENTS, MUTANTS.values()) == []


def test_a_reason_stands_only_where_there_is_no_mutant() -> None:
    named = {id_ for mutant in MUTANTS.values() for id_ in mutant.kills}
    assert [id_ for id_ in WITHOUT_MUTANT if id_ not in REQUIREMENTS or id_ in named] == []


def test_every_test_of_the_suites_has_a_requirement() -> None:
    assert len(TESTS) > 100
    assert [test for test, ids in TESTS.items() if not ids] == []


def test_every_test_is_in_the_chapter_of_one_of_its_requirements() -> None:
    misplaced = [
        test
        for test, ids in TESTS.items()
        if test.split("/")[0] not in {REQUIREMENTS[id_].chapter for id_ in ids}
    ]
    assert misplaced == []


def requirement(id_: str, level: Level) -> Requirement:
    return Requirement(id_, "AR", level, "collectives", 2, "It works.")


@pytest.mark.parametrize(("level", "expected"), [(Level.MUST, ["VD-AR-777"]), (Level.SHOULD, [])])
def test_a_requirement_without_test_or_mutant_is_found(level: Level, expected: list[str]) -> None:
    both = {id_: requirement(id_, level) for id_ in ("VD-AR-001", "VD-AR-777")}
    mutant = Mutant("m", "It is wrong.", "values", ("VD-AR-001",), lambda _: None)
    assert without_test(both, ["VD-AR-001"]) == expected
    assert without_mutant(both, [mutant]) == expected
