"""Each test runs a session over a copy of the package with suites of its own, laid out as a user has it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import pytest_vdist

PACKAGE = Path(pytest_vdist.__file__).parent
SUITE = """
import pytest

@pytest.mark.vdist_requirement("VD-AR-001", "VD-AR-002")
@pytest.mark.parametrize("dim", [0, 1])
def test_sizes(world_size, dim):
    assert dim == 0

@pytest.mark.vdist_requirement("VD-AR-003")
def test_no_mode():
    pass
"""
IDS = [
    "suites/collectives/test_sample.py::test_sizes[cpu-1-0]",
    "suites/collectives/test_sample.py::test_sizes[cpu-1-1]",
    "suites/collectives/test_sample.py::test_sizes[cpu-2-0]",
    "suites/collectives/test_sample.py::test_sizes[cpu-2-1]",
    "suites/collectives/test_sample.py::test_no_mode[cpu]",
]
RUN = ("--vdist-backend=cpu", "--vdist-world-sizes=1,2")


@dataclass(frozen=True)
class Installation:
    """A copy of the package, and how a session there reaches the suites."""

    path: Path
    suite: Path
    current: Path
    arguments: tuple[str, ...]

    def run(self, *arguments: str, target: tuple[str, ...] | None = None) -> subprocess.CompletedProcess[str]:
        chosen = self.arguments if target is None else target
        variables = {name: value for name, value in os.environ.items() if not name.startswith("VDIST_")}
        variables.pop("PYTEST_ADDOPTS", None)
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:hypothesispytest", *chosen, *arguments],
            cwd=self.current,
            env={**variables, "PYTHONPATH": str(self.path), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def collect(self, *arguments: str, target: tuple[str, ...] | None = None) -> list[str]:
        """Return the ids that a session collects."""
        result = self.run("--collect-only", "-q", *RUN, *arguments, target=target)
        assert result.returncode == 0, result.stdout + result.stderr
        return [line for line in result.stdout.splitlines() if "::" in line]


def copy_package(destination: Path, suites: Path) -> None:
    """Copy all but the suites, and write a suite of one file."""
    shutil.copytree(PACKAGE, destination, ignore=shutil.ignore_patterns("suites", "__pycache__"))
    (suites / "collectives").mkdir(parents=True)
    (suites / "__init__.py").touch()
    (suites / "collectives" / "__init__.py").touch()
    (suites / "collectives" / "test_sample.py").write_text(SUITE)


@pytest.fixture
def wheel(tmp_path: Path) -> Installation:
    """Lay the package out as a wheel does; the session starts elsewhere."""
    site = tmp_path / "site-packages"
    suites = site / "pytest_vdist" / "suites"
    copy_package(site / "pytest_vdist", suites)
    (tmp_path / "elsewhere").mkdir()
    return Installation(site, suites, tmp_path / "elsewhere", ("--pyargs", "pytest_vdist.suites"))


@pytest.fixture
def checkout(tmp_path: Path) -> Installation:
    """Lay the package out as a clone does: the package holds a link to the suites beside it."""
    root = tmp_path / "checkout"
    copy_package(root / "pytest_vdist", root / "suites")
    (root / "pytest_vdist" / "suites").symlink_to("../suites")
    (root / "pyproject.toml").write_text('[tool.pytest.ini_options]\ntestpaths = ["suites"]\n')
    return Installation(root, root / "suites", root, ())


def test_ids_are_the_same_from_a_wheel_and_from_a_checkout(
    wheel: Installation, checkout: Installation
) -> None:
    assert wheel.collect() == IDS
    assert checkout.collect() == IDS
    assert checkout.collect(target=("--pyargs", "pytest_vdist.suites")) == IDS
    assert checkout.collect(target=("pytest_vdist/suites/collectives",)) == IDS


def test_ids_do_not_depend_on_the_current_directory(checkout: Installation) -> None:
    below = Installation(checkout.path, checkout.suite, checkout.suite / "collectives", ("test_sample.py",))
    assert below.collect() == IDS


def test_a_test_can_be_selected_by_path_by_package_by_keyword_and_deselected_by_id(
    wheel: Installation,
) -> None:
    assert wheel.collect(target=(f"{wheel.suite}/collectives/test_sample.py::test_sizes[cpu-2-1]",)) == [
        IDS[3]
    ]
    by_package = ("--pyargs", "pytest_vdist.suites.collectives.test_sample::test_no_mode[cpu]")
    assert wheel.collect(target=by_package) == [IDS[4]]
    assert wheel.collect("-k", "test_sizes and cpu-2") == IDS[2:4]
    assert wheel.collect("--deselect", IDS[0], "--deselect", IDS[4]) == IDS[1:4]


def test_last_failed_runs_the_failed_ones_again(wheel: Installation) -> None:
    first = wheel.run("-q", *RUN)
    assert "2 failed, 3 passed" in first.stdout
    again = wheel.run("-q", "--lf", "-rf", *RUN)
    assert "2 failed, 3 deselected" in again.stdout
    assert f"FAILED {IDS[1]}" in again.stdout


def test_workers_of_xdist_run_the_suites_under_the_same_ids(wheel: Installation) -> None:
    result = wheel.run("-n2", "-rf", *RUN)
    assert "2 failed, 3 passed" in result.stdout
    assert f"FAILED {IDS[3]}" in result.stdout


@pytest.mark.parametrize(
    "arguments", [(), ("-n2",), ("--vdist-timeout=5",)], ids=["plain", "xdist", "option"]
)
def test_suites_without_a_device_are_a_usage_error(wheel: Installation, arguments: tuple[str, ...]) -> None:
    result = wheel.run(*arguments)
    assert result.returncode == pytest.ExitCode.USAGE_ERROR
    assert result.stderr.split("\n")[0] == (
        f"ERROR: the suites test a device, got none for {wheel.suite}; "
        "name the device: pytest --vdist-backend=cpu"
    )


def test_suites_whose_asserts_python_leaves_out_are_a_usage_error(
    wheel: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONOPTIMIZE", "2")
    result = wheel.run(*RUN, "--assert=plain")
    assert result.returncode == pytest.ExitCode.USAGE_ERROR
    assert (
        "ERROR: the suites judge by assert statements, which Python leaves out at optimization level 2, "
        f"got {wheel.suite}; unset PYTHONOPTIMIZE and run Python without -O"
    ) in result.stderr


def test_suites_without_a_device_reached_from_a_folder_above_are_a_usage_error(wheel: Installation) -> None:
    result = wheel.run(target=(str(wheel.path),))
    assert result.returncode == pytest.ExitCode.USAGE_ERROR
    file = wheel.suite / "collectives" / "test_sample.py"
    deselected = wheel.run("-k", "not suites", target=(str(wheel.path),))
    assert deselected.returncode == pytest.ExitCode.NO_TESTS_COLLECTED
    assert f"ERROR: the suites test a device, got none for {file}; name the device" in result.stderr


def test_under_xdist_suites_without_a_device_reached_from_above_are_a_collection_error(
    wheel: Installation,
) -> None:
    result = wheel.run("-n2", target=(str(wheel.path),))
    assert result.returncode != 0
    # pytest repeats the message in its summary when it sees that a CI system runs it.
    errors = result.stdout.partition("short test summary")[0]
    assert errors.count("name the device: pytest --vdist-backend=cpu") == 1
    assert "INTERNALERROR" not in result.stdout


def test_suite_tests_without_known_requirements_are_collection_errors(wheel: Installation) -> None:
    unmarked = "names no requirement; mark it with @pytest.mark.vdist_requirement('VD-…')"
    problems = {
        "bare": ("", unmarked),
        "empty": ("@pytest.mark.vdist_requirement()", unmarked),
        "keyword": ("@pytest.mark.vdist_requirement(id='VD-AR-001')", unmarked),
        "unknown": (
            "@pytest.mark.vdist_requirement('VD-AR-999')",
            "unknown requirement 'VD-AR-999'; did you mean",
        ),
    }
    for name, (marker, _) in problems.items():
        file = wheel.suite / "collectives" / f"test_{name}.py"
        file.write_text(f"import pytest\n{marker}\ndef test_it(): pass\n")
    result = wheel.run(*RUN)
    assert result.returncode == pytest.ExitCode.INTERRUPTED
    assert f"{len(problems)} errors" in result.stdout
    for name, (_, problem) in problems.items():
        (line,) = [text for text in result.stdout.splitlines() if f"test_{name}.py::test_it" in text]
        assert problem in line


def test_tests_outside_the_suites_need_no_requirement_and_keep_their_ids(wheel: Installation) -> None:
    (wheel.current / "suites").mkdir()
    (wheel.current / "suites" / "test_mine.py").write_text("def test_it(): pass\n")
    assert wheel.collect(target=("suites",)) == ["suites/test_mine.py::test_it"]


def test_only_the_suites_own_warnings_become_errors(wheel: Installation) -> None:
    """Where a session turns warnings into errors, it is about its own code, not about what it judges."""
    marked = '@pytest.mark.vdist_requirement("VD-AR-001")\n'
    (wheel.suite / "collectives" / "test_warnings.py").write_text(
        "import pytest, warnings\n\n"
        f"{marked}def test_of_others():\n"
        '    warnings.warn_explicit("old", DeprecationWarning, "acme.py", 1, module="acme.core")\n\n'
        f"{marked}def test_own():\n"
        '    warnings.warn("our own")\n'
    )
    result = wheel.run("-q", "-rf", "-W", "error", "-k", "test_warnings", *RUN)
    assert "1 failed, 1 passed" in result.stdout
    assert "test_own[cpu] - UserWarning: our own" in result.stdout
    assert "DeprecationWarning: old" in result.stdout
