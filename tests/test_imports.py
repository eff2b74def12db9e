"""Who may import whom, over every import of every module, lazy ones too."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pytest_vdist

PACKAGE = Path(pytest_vdist.__file__).parent
STANDARD_LIBRARY = frozenset(sys.stdlib_module_names)
PURE: dict[str, tuple[str, ...]] = {"judge": (), "programs": ("judge",)}
SMALL_LIBRARIES = frozenset({"cryptography", "jinja2", "jsonschema", "packaging"})


def modules_below(root: Path) -> dict[str, Path]:
    """Return all modules of the package by dotted name; the suites and the reference may be links."""
    found = {}
    for folder, _, files in os.walk(root, followlinks=True):
        for file in sorted(files):
            path = Path(folder, file)
            if path.suffix == ".py":
                parts = (root.name, *path.relative_to(root).with_suffix("").parts)
                found[".".join(parts).removesuffix(".__init__")] = path
    return found


def imports_of(source: str, module: str, *, is_package: bool) -> set[str]:
    """Return every name that a module imports, absolute. `from a import b` gives a.b: b may be a module."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            prefix = ".".join([*base, *([node.module] if node.module else [])])
            names.update(f"{prefix}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and _is_dynamic_import(node):
            names.update(
                a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)
            )
    return names


def _is_dynamic_import(call: ast.Call) -> bool:
    function = call.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name in {"import_module", "__import__", "importorskip"}


def violations(module: str, names: set[str]) -> Iterator[str]:
    """Yield what a module of the package imports against the rules."""
    for name in sorted(names):
        reason = _refusal(module, name)
        if reason:
            yield f"{module} imports {name}: {reason}"


def _refusal(module: str, name: str) -> str:
    if within(name, "pytest_vdist.plugin"):
        return "nothing imports the plugin but pytest"
    if within(module, "pytest_vdist.suites"):
        return _refusal_for_suites(module, name)
    if within(module, "pytest_vdist.reference_impl"):
        allowed = top_of(name) in STANDARD_LIBRARY | {"torch"} or within(name, "pytest_vdist.reference_impl")
        return "" if allowed else "the reference imports torch and the standard library only"
    for package, others in PURE.items():
        if within(module, f"pytest_vdist.{package}"):
            own = any(within(name, f"pytest_vdist.{each}") for each in (package, *others))
            allowed = own or top_of(name) in STANDARD_LIBRARY | {"torch"}
            pure = f"the {package} imports torch{''.join(f', the {each}' for each in others)}"
            return "" if allowed else f"{pure} and the standard library only"
    if within(module, "pytest_vdist.certificate"):
        allowed = top_of(name) in STANDARD_LIBRARY | SMALL_LIBRARIES or within(
            name, "pytest_vdist.certificate"
        )
        return "" if allowed else "certificates import the standard library and small libraries only"
    return ""


def _refusal_for_suites(module: str, name: str) -> str:
    if within(module, "pytest_vdist.suites.torchrun") and within(name, "pytest_vdist.reference_impl.models"):
        return ""  # the example scripts run the reference's models
    if within(name, "pytest_vdist.reference_impl") or top_of(name) in {"reference_impl", "suites"}:
        return "the suites import neither the reference nor each other"
    if within(name, "pytest_vdist.suites"):
        return "the suites do not import each other"
    if top_of(name) == "pytest_vdist" and not is_public(name):
        return "the suites import public names of pytest_vdist only"
    allowed = STANDARD_LIBRARY | {"pytest", "hypothesis", "torch", "pytest_vdist"}
    return "" if top_of(name) in allowed else "the suites import pytest, hypothesis and torch only"


def is_public(name: str) -> bool:
    packages = ("faults", "judge", "process_groups", "programs", "strategies")
    if any(within(name, f"pytest_vdist.{package}") for package in packages):
        return not any(part.startswith("_") for part in name.split("."))
    return name == "pytest_vdist" or name.removeprefix("pytest_vdist.") in pytest_vdist.__all__


def top_of(name: str) -> str:
    return name.partition(".")[0]


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


MODULES = modules_below(PACKAGE)
IMPORTS = {
    name: imports_of(path.read_text(encoding="utf-8"), name, is_package=path.name == "__init__.py")
    for name, path in MODULES.items()
}


def reachable_from(module: str) -> set[str]:
    """Return the modules of the package that a module imports, directly or by way of others."""
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        for name in IMPORTS[current]:
            waiting += [known for known in (name, name.rpartition(".")[0]) if known in MODULES]
    return seen


def test_the_walk_reaches_the_linked_folders() -> None:
    assert {"pytest_vdist.plugin", "pytest_vdist.suites", "pytest_vdist.reference_impl"} <= set(MODULES)


def test_no_module_imports_against_the_rules() -> None:
    assert [broken for module, names in IMPORTS.items() for broken in violations(module, names)] == []


@pytest.mark.parametrize("library", ["hypothesis", "pytest", "_pytest"])
def test_nothing_that_a_rank_imports_imports(library: str) -> None:
    users = {
        module
        for module in reachable_from("pytest_vdist.ranks.worker")
        if any(within(name, library) for name in IMPORTS[module])
    }
    assert users == set()


def test_a_rank_loads_neither_pytest_nor_hypothesis() -> None:
    unwanted = "{'pytest', '_pytest', 'hypothesis'}"
    code = f"import sys, pytest_vdist.ranks.worker; print(*{unwanted} & set(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == []


@pytest.mark.parametrize(
    ("module", "source", "reason"),
    [
        ("pytest_vdist.suites.a.test_b", "from pytest_vdist import reference_impl", "neither the reference"),
        ("pytest_vdist.suites.a.test_b", "def f():\n import reference_impl.envs", "neither the reference"),
        ("pytest_vdist.suites.a.test_b", "from .test_c import x", "do not import each other"),
        ("pytest_vdist.suites.a.test_b", "from pytest_vdist.options import TABLE", "public names"),
        ("pytest_vdist.suites.a.test_b", "import vllm", "pytest, hypothesis and torch only"),
        ("pytest_vdist.suites.a.test_b", "pytest.importorskip('vllm')", "pytest, hypothesis and torch only"),
        ("pytest_vdist.reference_impl.x", "import numpy", "torch and the standard library"),
        (
            "pytest_vdist.reference_impl.x",
            "from pytest_vdist.judge import y",
            "torch and the standard library",
        ),
        ("pytest_vdist.reference_impl.x", "from ..judge import y", "torch and the standard library"),
        (
            "pytest_vdist.judge.x",
            "def f():\n from pytest_vdist import current_rank",
            "torch and the standard",
        ),
        ("pytest_vdist.judge.x", "import pytest", "torch and the standard library"),
        ("pytest_vdist.programs.x", "import hypothesis", "torch, the judge and the standard library only"),
        (
            "pytest_vdist.programs.x",
            "from pytest_vdist.ranks import pool",
            "torch, the judge and the standard",
        ),
        ("pytest_vdist.certificate.x", "import torch.distributed", "standard library and small"),
        ("pytest_vdist.certificate.x", "importlib.import_module('torch')", "standard library and small"),
        ("pytest_vdist.cli", "from pytest_vdist.plugin import x", "nothing imports the plugin"),
        ("pytest_vdist.cli", "from . import plugin", "nothing imports the plugin"),
    ],
)
def test_an_import_against_the_rules_is_found(module: str, source: str, reason: str) -> None:
    (broken,) = violations(module, imports_of(source, module, is_package=False))
    assert reason in broken
    assert broken.startswith(f"{module} imports ")


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("pytest_vdist.suites.a.test_b", "import torch, pytest\nfrom pytest_vdist import current_rank"),
        ("pytest_vdist.suites.a.test_b", "from pytest_vdist.judge.exact import x"),
        ("pytest_vdist.suites.torchrun.run", "from pytest_vdist.reference_impl.models import x"),
        (
            "pytest_vdist.reference_impl.x",
            "from . import envs\nfrom .wire import y\nimport torch.distributed as d",
        ),
        ("pytest_vdist.judge.x", "from pytest_vdist.judge import y\nimport math"),
        ("pytest_vdist.certificate.x", "import tomllib, jinja2"),
    ],
)
def test_an_import_within_the_rules_passes(module: str, source: str) -> None:
    assert list(violations(module, imports_of(source, module, is_package=False))) == []
