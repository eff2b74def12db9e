"""Building the extension: once for everybody, with an error that says what to do where it cannot be built."""

from __future__ import annotations

import multiprocessing
import os
import stat
import sys
from pathlib import Path

import pytest
import torch

from pytest_vdist.backends.base import BackendError
from pytest_vdist.backends.registry import require_devices
from pytest_vdist.backends.simdev import BACKEND
from pytest_vdist.reference_impl.simdev import BuildError, build, build_extension, device_count

WRITES_A_FILE = """#!{python}
import sys, pathlib, time
log = pathlib.Path({log!r})
with log.open("a") as file:
    file.write(" ".join(sys.argv[1:]) + "\\n")
pathlib.Path(sys.argv[sys.argv.index("-o") + 1]).write_text("built")
"""
FAILS = """#!/bin/sh
cat > /dev/null
echo "In file included from <stdin>:1:"
echo "device.h:7:10: fatal error: Python.h: No such file or directory"
exit 1
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty cache folder that is used instead of the user's."""
    monkeypatch.setenv(build.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.delenv("CXX", raising=False)
    return tmp_path / "cache"


def compiler(folder: Path, text: str) -> str:
    path = folder / "fake-c++"
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_the_cache_is_where_the_variables_say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(build.CACHE_VARIABLE, raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert build.cache_folder() == Path.home() / ".cache" / "pytest-vdist" / "simdev"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert build.cache_folder() == tmp_path / "pytest-vdist" / "simdev"
    monkeypatch.setenv(build.CACHE_VARIABLE, str(tmp_path / "own"))
    assert build.cache_folder() == tmp_path / "own"


def _build_in_a_process(_: int) -> str:
    return str(build_extension())


def test_processes_that_build_at_once_build_once(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    monkeypatch.setenv("CXX", compiler(tmp_path, WRITES_A_FILE.format(python=sys.executable, log=str(log))))

    with multiprocessing.get_context("fork").Pool(4) as pool:
        paths = set(pool.map(_build_in_a_process, range(4), chunksize=1))

    (path,) = map(Path, paths)
    assert path.read_text() == "built"
    assert path.parent.parent == cache
    commands = log.read_text().splitlines()
    assert len(commands) == 3, "two units are compiled and one library is linked"
    assert [file.name for file in path.parent.iterdir() if file.name not in {path.name, "lock"}] == []
    assert build_extension() == path
    assert log.read_text().splitlines() == commands


def test_another_torch_python_or_source_gets_another_extension(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    monkeypatch.setenv("CXX", compiler(tmp_path, WRITES_A_FILE.format(python=sys.executable, log=str(log))))
    sources = tmp_path / "csrc"
    sources.mkdir()
    (sources / "device.cpp").write_text("int one;")

    built = {build_extension()}
    with monkeypatch.context() as patched:
        patched.setattr(torch, "__version__", "3.0.0")
        built.add(build_extension())
    with monkeypatch.context() as patched:
        patched.setattr("sysconfig.get_config_var", lambda name: f"another {name}")
        built.add(build_extension())
    monkeypatch.setattr(build, "_SOURCES", sources)
    built.add(build_extension())
    (sources / "device.cpp").write_text("int two;")
    built.add(build_extension())

    assert len(built) == 5
    assert all(path.is_relative_to(cache) for path in built)


@pytest.mark.parametrize(
    ("variable", "problem"),
    [
        (None, "there is no C++ compiler 'c++' (CXX is not set)"),
        ("no-such-g++ -m64", "there is no C++ compiler 'no-such-g++' (the environment variable CXX)"),
    ],
)
def test_without_a_compiler_the_error_says_how_to_get_one(
    cache: Path, monkeypatch: pytest.MonkeyPatch, variable: str | None, problem: str
) -> None:
    if variable:
        monkeypatch.setenv("CXX", variable)
    monkeypatch.setenv("PATH", str(cache))
    with pytest.raises(BuildError) as caught:
        build_extension()
    assert str(caught.value) == (
        f"cannot build the device simdev: {problem}; to get it, install one (Debian, Ubuntu: apt-get install "
        "g++) or set CXX, or set VDIST_SIMDEV_CACHE to the cache of a machine with the same torch and Python"
    )


def test_a_compiler_that_fails_is_quoted(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", compiler(tmp_path, FAILS))
    with pytest.raises(BuildError) as caught:
        build_extension()
    assert str(caught.value) == (
        f"cannot build the device simdev: {tmp_path}/fake-c++ failed with exit status 1:\n"
        "device.h:7:10: fatal error: Python.h: No such file or directory\n; to get it, install GCC 10 or "
        "newer, or clang 10 or newer, and the headers of Python (Debian, Ubuntu: apt-get install g++ "
        "python3-dev), or set VDIST_SIMDEV_CACHE to the cache of a machine with the same torch and Python"
    )
    assert [path.name for path in cache.rglob("*") if path.is_file()] == ["lock"]


def test_a_cache_that_cannot_be_written_is_named(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").write_text("a file, not a folder")
    with pytest.raises(BuildError, match=r"the cache folder .*cache.* cannot be made \(Not a directory\)"):
        build_extension()


def test_a_backend_that_cannot_be_built_is_known_but_not_available(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-g++")
    found = BACKEND.probe()
    assert not found.available
    assert found.looked_for == (
        "its C++ extension, which cannot be built: there is no C++ compiler 'no-such-g++' "
        "(the environment variable CXX)"
    )
    assert found.remedy.startswith(
        "install one (Debian, Ubuntu: apt-get install g++) or set CXX, or set VDIST"
    )


@pytest.mark.parametrize(
    ("count", "visible", "seen"),
    [(None, None, 8), ("3", None, 3), ("4", "2,3", 2), ("4", "0", 1), ("2", "1, 7", 1), ("0", None, 0)],
)
def test_the_environment_sets_the_number_of_devices(
    monkeypatch: pytest.MonkeyPatch, count: str | None, visible: str | None, seen: int
) -> None:
    for variable, value in (("SIMDEV_COUNT", count), ("SIMDEV_VISIBLE_DEVICES", visible)):
        if value is None:
            monkeypatch.delenv(variable, raising=False)
        else:
            monkeypatch.setenv(variable, value)
    assert device_count() == seen


def test_a_number_of_devices_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMDEV_COUNT", "many")
    with pytest.raises(ValueError, match="environment variable SIMDEV_COUNT: 'many' is not a whole number"):
        device_count()


def test_without_devices_the_backend_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMDEV_COUNT", "0")
    monkeypatch.setattr("pytest_vdist.backends.registry.availability", lambda backend: backend.probe())
    with pytest.raises(BackendError) as caught:
        require_devices(BACKEND, origin="the command line")
    assert str(caught.value) == (
        "backend 'simdev' has no device on this machine, got 'simdev' from the command line; looked for the "
        "number of simulated devices, SIMDEV_COUNT=0; to get it, set SIMDEV_COUNT to 1 or more"
    )
    assert os.environ["SIMDEV_COUNT"] == "0"
