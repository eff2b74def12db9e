"""Builds the C++ part of the simulated device on first use and keeps it in the user's cache folder."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shlex
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import torch

MODULE_NAME = "_simdev"
CACHE_VARIABLE = "VDIST_SIMDEV_CACHE"
_SOURCES = Path(__file__).parent / "csrc"
# Most of the time goes into torch's headers, so files that need the same ones are compiled as one.
_UNITS = {
    "device": ("device.cpp", "generator.cpp", "kernels.cpp"),
    "simccl": ("staging.cpp", "work.cpp", "collectives.cpp", "simccl.cpp", "bindings.cpp"),
}
_FLAGS = ("-std=c++20", "-O0", "-fPIC", "-fvisibility=hidden", f"-DTORCH_EXTENSION_NAME={MODULE_NAME}")
_LIBRARIES = ("torch_python", "torch", "torch_cpu", "c10")
_LINES_SHOWN = 20
_ELSEWHERE = f"or set {CACHE_VARIABLE} to the cache of a machine with the same torch and Python"


class BuildError(RuntimeError):
    """Raised when the extension cannot be built. `problem` says why, `remedy` what to do."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"cannot build the device simdev: {problem}; to get it, {remedy}")
        self.problem = problem
        self.remedy = remedy


def build_extension() -> Path:
    """Return the extension for this torch and Python, built if nobody has done so before.

    It takes about 20 seconds once; processes that ask for it meanwhile wait. Raises BuildError.
    """
    folder = cache_folder() / _key()
    library = folder / f"{MODULE_NAME}.so"
    if library.exists():
        return library
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BuildError(
            f"the cache folder {folder} cannot be made ({error.strerror})",
            f"set {CACHE_VARIABLE} to a folder that can be written",
        ) from error
    with _locked(folder / "lock"):
        if not library.exists():
            _build(library)
    return library


def cache_folder() -> Path:
    """Return where extensions are kept: VDIST_SIMDEV_CACHE, or pytest-vdist/simdev in the user's cache."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen)
    # https://specifications.freedesktop.org/basedir-spec: an empty variable counts as unset
    user_cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(user_cache) / "pytest-vdist" / "simdev"


def _key() -> str:
    """Name what the extension depends on, so that another torch, Python or source gets another one."""
    digest = hashlib.sha256()
    for part in (torch.__version__, torch.version.git_version, sysconfig.get_config_var("SOABI"), *_FLAGS):
        digest.update(f"{part}\n".encode())
    for source in sorted(_SOURCES.iterdir()):
        digest.update(source.name.encode() + source.read_bytes())
    return f"torch-{torch.__version__}-{digest.hexdigest()[:16]}"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file, which the kernel releases if this process dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(library: Path) -> None:
    compiler = _compiler()
    with tempfile.TemporaryDirectory(dir=library.parent) as folder, ThreadPoolExecutor() as threads:
        compiled = threads.map(lambda unit: _compile(compiler, unit, Path(folder)), _UNITS)
        linked = Path(folder) / library.name
        _run([*compiler, "-shared", "-o", str(linked), *map(str, compiled), *_link_flags()])
        linked.replace(library)  # at once: nobody sees half an extension


def _compiler() -> list[str]:
    command = shlex.split(os.environ.get("CXX", "")) or ["c++"]
    if shutil.which(command[0]) is None:
        origin = "the environment variable CXX" if os.environ.get("CXX") else "CXX is not set"
        raise BuildError(
            f"there is no C++ compiler {command[0]!r} ({origin})",
            f"install one (Debian, Ubuntu: apt-get install g++) or set CXX, {_ELSEWHERE}",
        )
    return command


def _compile(compiler: Sequence[str], unit: str, folder: Path) -> Path:
    from torch.utils import cpp_extension  # noqa: PLC0415 - slow, and talkative where CUDA's driver is missing

    target = folder / f"{unit}.o"
    includes = [f"-I{path}" for path in (*cpp_extension.include_paths(), sysconfig.get_path("include"))]
    text = "".join(f'#include "{_SOURCES / name}"\n' for name in _UNITS[unit])
    _run([*compiler, *_FLAGS, *includes, "-x", "c++", "-c", "-", "-o", str(target)], text)
    return target


def _link_flags() -> list[str]:
    from torch.utils import cpp_extension  # noqa: PLC0415 - as above

    folders = cpp_extension.library_paths()
    return [
        *(f"-L{folder}" for folder in folders),
        *(f"-l{library}" for library in _LIBRARIES),
        *(f"-Wl,-rpath,{folder}" for folder in folders),
    ]


def _run(command: Sequence[str], text: str = "") -> None:
    done = subprocess.run(  # noqa: S603 - the user's own compiler, without a shell
        command, input=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        lines = done.stdout.splitlines()
        errors = [line for line in lines if "error" in line] or lines
        shown = "\n".join(errors[:_LINES_SHOWN])
        raise BuildError(
            f"{command[0]} failed with exit status {done.returncode}:\n{shown}\n",
            "install GCC 10 or newer, or clang 10 or newer, and the headers of Python "
            f"(Debian, Ubuntu: apt-get install g++ python3-dev), {_ELSEWHERE}",
        )
