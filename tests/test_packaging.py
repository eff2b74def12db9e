"""What a user installs: the wheel's contents, and the same suites from wheel, editable install and clone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pytest
from packaging.version import Version

ROOT = Path(__file__).parent.parent
SHIPPED = ("pyproject.toml", "README.md", "LICENSE", "pytest_vdist", "suites", "reference_impl")
OWN_ENTRIES = ("pytest_vdist*", "__editable__*pytest_vdist*")
BY_PACKAGE = ("--pyargs", "pytest_vdist.suites")


@dataclass(frozen=True)
class Environment:
    """A virtual environment that has this one's packages, but for pytest-vdist."""

    python: Path

    @classmethod
    def make(cls, folder: Path) -> Environment:
        venv.create(folder, symlinks=True)
        python = folder / "bin" / "python"
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        _link_packages(folder / "lib" / version / "site-packages")
        return cls(python)

    def install(self, *arguments: str) -> None:
        pip = [sys.executable, "-m", "pip", "--python", str(self.python), "--disable-pip-version-check"]
        completed(*pip, "install", "--no-deps", *arguments)

    def pytest(
        self, *arguments: str, current: Path, safe_path: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run pytest; with `safe_path` as its script would, else with the current folder on sys.path."""
        flags = ("-P",) if safe_path else ()
        return completed(
            str(self.python), *flags, "-m", "pytest", "-p", "no:cacheprovider", *arguments, current=current
        )

    def collect(self, *arguments: str, current: Path, safe_path: bool = True) -> list[str]:
        """Return the ids of the suites' tests on the CPU."""
        options = ("--vdist-backend=cpu", "--collect-only", "-q")
        output = self.pytest(*options, *arguments, current=current, safe_path=safe_path).stdout
        return [line for line in output.splitlines() if "::" in line]


def completed(*command: str, current: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, free of what this session's environment says to Python and pytest."""
    ours = ("VDIST_", "PYTEST_", "PYTHON")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    result = subprocess.run(
        command, cwd=current, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert result.returncode == 0, f"{' '.join(command)}\n{result.stdout}\n{result.stderr}"
    return result


def _link_packages(site_packages: Path) -> None:
    """Link every installed package but pytest-vdist, so that nothing has to be fetched."""
    folders = [Path(entry) for entry in sys.path if entry.endswith(("site-packages", "dist-packages"))]
    for folder in folders:
        hidden = {path for pattern in OWN_ENTRIES for path in folder.glob(pattern)}
        for path in sorted(set(folder.iterdir()) - hidden):
            link = site_packages / path.name
            if not link.exists():
                link.symlink_to(path)


def _has_build_requirements() -> bool:
    """Tell whether setuptools of this environment can build the wheel; else a newer one must be fetched."""
    try:
        return Version(metadata.version("setuptools")) >= Version("77")
    except metadata.PackageNotFoundError:
        return False


def _copy_of_the_clone(folder: Path) -> Path:
    """Copy what the distributions are made of: a build leaves files behind that a clone does not have."""
    copy = folder / "pytest-vdist"
    copy.mkdir()
    for name in SHIPPED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, symlinks=True)
        else:
            shutil.copy(ROOT / name, copy / name)
    return copy


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the source distribution, and the wheel from it, as an upload would."""
    source = _copy_of_the_clone(tmp_path_factory.mktemp("source"))
    output = tmp_path_factory.mktemp("dist")
    isolation = ("--no-isolation",) if _has_build_requirements() else ()
    completed(sys.executable, "-m", "build", *isolation, "--outdir", str(output), str(source))
    (built,) = output.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def from_wheel(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    environment = Environment.make(tmp_path_factory.mktemp("wheel") / "venv")
    environment.install("--no-index", str(wheel))
    return environment


@pytest.fixture(scope="module")
def editable_clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _copy_of_the_clone(tmp_path_factory.mktemp("editable_clone"))


@pytest.fixture(scope="module")
def editable(editable_clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    environment = Environment.make(tmp_path_factory.mktemp("editable") / "venv")
    isolation = ("--no-build-isolation",) if _has_build_requirements() else ()
    environment.install(*isolation, "--editable", str(editable_clone))
    return environment


@pytest.fixture(scope="module")
def ids_of_a_clone(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Collect in a clone, where pytest-vdist is not installed at all."""
    clone = _copy_of_the_clone(tmp_path_factory.mktemp("clone"))
    nothing_installed = Environment.make(tmp_path_factory.mktemp("bare") / "venv")
    return nothing_installed.collect("-p", "pytest_vdist.plugin", current=clone, safe_path=False)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Make a user's project with folders of the names that this repository has, and tests of its own."""
    for name in ("suites", "suites/collectives", "reference_impl", "tests"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    (tmp_path / "suites" / "collectives" / "test_all_reduce.py").write_text("def test_theirs(): pass\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\ntestpaths = tests\naddopts = --strict-markers\n")
    return tmp_path


def files_of_the_package() -> set[str]:
    """Return every file below the package, those of the linked folders too, as named in a wheel."""
    return {
        Path(folder, file).relative_to(ROOT).as_posix()
        for folder, _, files in os.walk(ROOT / "pytest_vdist", followlinks=True)
        for file in files
        if "__pycache__" not in folder
    }


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_adds_one_name_and_its_metadata(wheel: Path) -> None:
    tops = {name.partition("/")[0] for name in names_in(wheel)}
    assert tops == {"pytest_vdist", f"pytest_vdist-{wheel.name.split('-')[1]}.dist-info"}


def test_the_wheel_holds_every_file_of_plugin_suites_and_reference_and_nothing_else(wheel: Path) -> None:
    in_wheel = {name for name in names_in(wheel) if name.startswith("pytest_vdist/")}
    assert sorted(in_wheel ^ files_of_the_package()) == []


@pytest.mark.parametrize(
    "name",
    [
        "py.typed",
        "certificate/requirements.toml",
        "suites/collectives/test_all_reduce.py",
        "reference_impl/coordinator.py",
        "reference_impl/communicators/cpu.py",
    ],
)
def test_the_walk_over_the_package_sees_data_and_linked_folders(name: str) -> None:
    assert f"pytest_vdist/{name}" in files_of_the_package()


def test_every_chapter_is_a_package_so_that_names_of_files_may_repeat() -> None:
    folders = {path.parent for path in (ROOT / "suites").rglob("*.py")}
    assert sorted(str(folder) for folder in folders if not (folder / "__init__.py").is_file()) == []


def test_a_clone_without_any_install_runs_every_chapter(ids_of_a_clone: Sequence[str]) -> None:
    chapters = {path.parent.name for path in (ROOT / "suites").glob("*/test_*.py")}
    assert {id_.split("/")[1] for id_ in ids_of_a_clone} == chapters


def test_the_wheel_has_the_ids_of_the_clone_wherever_it_is_started(
    from_wheel: Environment, ids_of_a_clone: Sequence[str], tmp_path: Path, project: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert from_wheel.collect(*BY_PACKAGE, current=elsewhere) == ids_of_a_clone
    assert from_wheel.collect(*BY_PACKAGE, current=project, safe_path=False) == ids_of_a_clone


def test_an_editable_install_has_the_ids_of_the_clone_wherever_it_is_started(
    editable: Environment, ids_of_a_clone: Sequence[str], editable_clone: Path, tmp_path: Path
) -> None:
    assert editable.collect(current=editable_clone) == ids_of_a_clone
    assert editable.collect(*BY_PACKAGE, current=tmp_path) == ids_of_a_clone


def test_a_test_of_the_suites_passes_from_the_wheel(
    from_wheel: Environment, ids_of_a_clone: Sequence[str], project: Path
) -> None:
    module = "suites/collectives/test_all_reduce.py"
    chosen = next(id_ for id_ in ids_of_a_clone if id_.startswith(module) and "[cpu-2" in id_)
    by_package = chosen.replace(module, "pytest_vdist.suites.collectives.test_all_reduce")
    arguments = ("--vdist-backend=cpu", "-rA", "--pyargs", by_package)
    result = from_wheel.pytest(*arguments, current=project, safe_path=False)
    assert f"PASSED {chosen}" in result.stdout.splitlines()


def test_the_wheel_is_what_its_environment_imports(from_wheel: Environment, project: Path) -> None:
    program = "import pytest_vdist.suites as suites; print(suites.__file__)"
    imported_from = completed(str(from_wheel.python), "-c", program, current=project).stdout
    assert imported_from.startswith(str(from_wheel.python.parent.parent))
