"""torch and what it can do, the devices, the compiler and the environment."""

from __future__ import annotations

import inspect
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata

import pytest

from pytest_vdist.backends.base import Availability, BackendError, DeviceBackend
from pytest_vdist.backends.registry import BUILT_IN, ENTRY_POINT_GROUP, availability, find_backend
from pytest_vdist.doctor.findings import Finding
from pytest_vdist.options import TABLE, in_environment, refuse_unknown_variables

_LIBRARIES = ("pytest", "pytest-xdist", "multiprocess", "cloudpickle", "hypothesis", "numpy")
_PROCESS_GROUP_BACKENDS = ("gloo", "nccl", "xccl", "mpi", "ucc")
# That they are read by torch, a communication library, the plugin or a launcher.
_PREFIXES = ("VDIST_", "GLOO_", "NCCL_", "RCCL_", "CCL_", "MASTER_", "TORCH_", "TORCHINDUCTOR_", "PYTORCH_")
_NAMES = ("OMP_NUM_THREADS", "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "CXX")
_COMPILER_PATIENCE = 5.0


def libraries(version_of: Callable[[str], str] = metadata.version) -> Finding:
    """Judge whether the libraries that the plugin needs are installed."""
    found, missing = [], []
    for library in _LIBRARIES:
        try:
            found.append(f"{library} {version_of(library)}")
        except metadata.PackageNotFoundError:
            missing.append(library)
    if missing:
        problem = f"not installed: {', '.join(missing)}"
        return Finding("libraries", ", ".join(found), problem, "pip install pytest-vdist brings them")
    return Finding("libraries", ", ".join(found))


def torch_build() -> Finding:
    """Tell torch's version and what it is built for."""
    try:
        import torch  # noqa: PLC0415 - it takes a second to import, and may not be there
    except ImportError as error:
        return Finding("torch", "missing", f"torch cannot be imported: {error}", "pip install torch")
    toolkits = {name: getattr(torch.version, name, None) for name in ("cuda", "hip", "xpu")}
    return torch_version(str(torch.__version__), torch.__file__ or "", toolkits)


def torch_version(version: str, file: str, toolkits: Mapping[str, str | None]) -> Finding:
    """Describe a build of torch; `toolkits` has the versions of what it is built with."""
    build = ", ".join(f"{name} {built}" for name, built in toolkits.items() if built) or "CPU only"
    return Finding("torch", f"{version}, built for {build} ({os.path.dirname(file)})")


def process_group_backends(available: Mapping[str, bool]) -> Finding:
    """Judge the backends of torch.distributed; an empty mapping stands for a torch without it."""
    name = "process-group backends"
    if not available:
        return Finding(
            name, "none", "this torch has no torch.distributed", "install one with USE_DISTRIBUTED=1"
        )
    there = ", ".join(backend for backend, built in available.items() if built) or "none"
    absent = ", ".join(backend for backend, built in available.items() if not built)
    value = f"{there}; not built in: {absent}" if absent else there
    if not available.get("gloo"):
        problem = "this torch has no gloo, which every implementation needs for its CPU groups"
        return Finding(name, value, problem, "install a torch that is built with USE_GLOO=1")
    return Finding(name, value)


def built_in_backends() -> dict[str, bool]:
    """Ask torch which backends it is built with."""
    import torch.distributed as dist  # noqa: PLC0415 - as in torch_build

    if not dist.is_available():
        return {}
    asked = {name: getattr(dist, f"is_{name}_available", None) for name in _PROCESS_GROUP_BACKENDS}
    return {name: bool(is_available()) for name, is_available in asked.items() if is_available is not None}


def group_functions() -> Finding:
    """Ask torch which functions make groups, and which choices they offer."""
    import torch.distributed as dist  # noqa: PLC0415 - as in torch_build

    signatures = {
        name: list(inspect.signature(function).parameters)
        for name in ("new_group", "split_group")
        if (function := getattr(dist, name, None)) is not None
    }
    return offers(signatures)


def offers(signatures: Mapping[str, Sequence[str]]) -> Finding:
    """Describe what torch offers to make groups; `signatures` has the parameters by function."""
    new_group = "with timeout=" if "timeout" in signatures["new_group"] else "without timeout="
    split_group = "not there"
    if "split_group" in signatures:
        chosen = ("timeout", "backend")
        split_group = ", ".join(
            f"{'with' if option in signatures['split_group'] else 'without'} {option}=" for option in chosen
        )
    return Finding("groups", f"new_group {new_group}; split_group {split_group}")


def compiler(name: str | None, version: str, *, asked_for: bool) -> Finding:
    """Judge the C++ compiler that inductor calls for code on the CPU; `name` is None where there is none."""
    if name is not None:
        return Finding("C++ compiler", f"{version} ({name})")
    problem = "the compile mode inductor was asked for, and there is no C++ compiler" if asked_for else None
    return Finding(
        "C++ compiler", "none", problem, "install g++, or name one in CXX, for --vdist-compile=inductor"
    )


def compiler_here(environment: Mapping[str, str]) -> Finding:
    # As inductor does: CXX, else g++.
    path = shutil.which(environment.get("CXX", "g++"))
    asked_for = environment.get("VDIST_COMPILE", "") == "all" or "inductor" in environment.get(
        "VDIST_COMPILE", ""
    )
    version = ""
    if path is not None:
        answer = subprocess.run(  # noqa: S603 - the user's own compiler
            [path, "--version"], capture_output=True, text=True, timeout=_COMPILER_PATIENCE, check=False
        )
        version = answer.stdout.partition("\n")[0]
    return compiler(path, version, asked_for=asked_for)


def known_backends() -> list[str]:
    """Return the names of the built-in device backends and of those that vendors' distributions register."""
    vendors = (point.name for point in metadata.entry_points(group=ENTRY_POINT_GROUP))
    return list(dict.fromkeys((*BUILT_IN, *sorted(vendors))))


def device_backend(name: str, environment: Mapping[str, str], usable: list[str]) -> Finding:
    """Ask a device backend for its devices, and add its name to `usable` if it has any."""
    asked_for = name in [part.strip() for part in environment.get("VDIST_BACKEND", "").split(",")]
    try:
        backend = find_backend(name, origin="vdist doctor")
        found = availability(backend)
    except BackendError as error:
        return Finding(f"device {name}", "cannot be used", str(error), "see the problem")
    library = ""
    if found.available:
        library = backend.library_version()
        usable.append(name)
    return devices(backend, found, library, asked_for=asked_for)


def devices(backend: DeviceBackend, found: Availability, library: str, *, asked_for: bool) -> Finding:
    """Judge what a device backend found. That there is no device is a problem if VDIST_BACKEND names it."""
    name = f"device {backend.name}"
    if found.available:
        unit = "cores" if backend.shares_device else "devices"
        return Finding(name, f"{found.device_count} {unit}, {library}")
    problem = f"VDIST_BACKEND asks for {backend.name}, which has no device here" if asked_for else None
    return Finding(name, f"none; looked for {found.looked_for}", problem, found.remedy or None)


def relevant_variables(environment: Mapping[str, str]) -> list[str]:
    """Return the names of the variables that decide how ranks run, sorted."""
    return sorted(name for name in environment if name.startswith(_PREFIXES) or name in _NAMES)


def variable(name: str, value: str, *, cores: int, interfaces: Sequence[str]) -> Finding:
    """Judge one environment variable."""
    problem, remedy = _variable_problem(name, value, cores, interfaces)
    return Finding(name, value, problem, remedy)


def _variable_problem(
    name: str, value: str, cores: int, interfaces: Sequence[str]
) -> tuple[str | None, str | None]:
    if name.startswith("VDIST_"):
        return _own_variable_problem(name, value), f"unset {name}, or see: vdist options"
    if name == "OMP_NUM_THREADS" and not (value.isdecimal() and 0 < 2 * int(value) <= max(2, cores)):
        return (
            f"OMP_NUM_THREADS={value} is for each rank, and there are {cores} cores",
            "unset OMP_NUM_THREADS",
        )
    if name == "GLOO_SOCKET_IFNAME" and not set(value.split(",")) <= set(interfaces):
        return f"there is no interface {value}, only {', '.join(interfaces)}", "unset GLOO_SOCKET_IFNAME"
    if name == "TORCH_DISTRIBUTED_DEBUG" and value.upper() == "DETAIL":
        text = (
            "torch wraps every backend to check its calls, so another code than the tested one runs, slower"
        )
        return text, "unset TORCH_DISTRIBUTED_DEBUG"
    return None, None


def _own_variable_problem(name: str, value: str) -> str | None:
    try:
        refuse_unknown_variables({name: value})
        for row in TABLE:
            if row.variable == name:
                row.read(value, in_environment(name))
    except pytest.UsageError as error:
        return str(error)
    return None
