"""The tests of the suites and the requirements that they name, read from their source."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

from pytest_vdist.certificate.suites import SUITES
from pytest_vdist.suite_items import REQUIREMENT_MARKER


def tests_by_requirement() -> Mapping[str, list[str]]:
    """Return for each requirement that is named the tests that name it, `chapter/file::test`, in order."""
    found: dict[str, list[str]] = {}
    for module in sorted(SUITES.glob("*/test_*.py")):
        for test, ids in tests_of(module):
            for id_ in sorted(ids):
                found.setdefault(id_, []).append(f"{module.parent.name}/{module.name}::{test}")
    return found


def tests_of(module: Path) -> Iterator[tuple[str, set[str]]]:
    """Yield every test of a module with the requirements of its markers and the module's."""
    tree = ast.parse(module.read_text(encoding="utf-8"))
    of_module = {
        id_
        for statement in tree.body
        if isinstance(statement, ast.Assign) and getattr(statement.targets[0], "id", "") == "pytestmark"
        for id_ in _named(statement)
    }
    for statement in tree.body:
        if isinstance(statement, ast.FunctionDef) and statement.name.startswith("test_"):
            yield statement.name, of_module | _named(statement)


def _named(node: ast.AST) -> set[str]:
    return {
        argument.value
        for call in ast.walk(node)
        if isinstance(call, ast.Call) and getattr(call.func, "attr", "") == REQUIREMENT_MARKER
        for argument in call.args
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    }
