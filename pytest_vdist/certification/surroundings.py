"""What a session ran in: software, machine, settings with their sources, and the state of the suites."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import pytest

from pytest_vdist.backends.base import DeviceBackend
from pytest_vdist.certificate.requirements import REGISTRY_FILE, registry
from pytest_vdist.certificate.suites import suites_digest
from pytest_vdist.mutation.record import Tree, kill_score, read_record
from pytest_vdist.options import TABLE, Options
from pytest_vdist.reference_impl.mutants import MUTANTS

_LIBRARIES = ("torch", "pytest", "hypothesis", "numpy", "cloudpickle", "multiprocess", "pytest-vdist")
# Variables that change how libraries communicate; all others may hold secrets.
_VARIABLES = (
    "VDIST_",
    "NCCL_",
    "GLOO_",
    "CCL_",
    "UCC_",
    "UCX_",
    "FI_",
    "TORCH_",
    "SIMDEV_",
    "OMP_",
    "CUDA_",
    "ZE_",
)
_SECRETS = ("KEY", "TOKEN", "SECRET", "PASSWORD", "AUTH")


def suite() -> dict[str, Any]:
    """Return version, specification and digests of the suites that run."""
    return {
        "version": metadata.version("pytest-vdist"),
        "spec_version": registry().spec_version,
        "requirements_digest": hashlib.sha256(REGISTRY_FILE.read_bytes()).hexdigest(),
        "digest": suites_digest(),
        "kill_score": kill_score(
            read_record(), MUTANTS, Tree(metadata.version("pytest-vdist"), suites_digest())
        ),
    }


def environment(backend: DeviceBackend) -> dict[str, Any]:
    """Return what the report says about software and machine; only variables of communication."""
    return {
        "python": platform.python_version(),
        "torch": metadata.version("torch"),
        "os": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "cpu_count": os.cpu_count(),
        "device_library": backend.library_version(),
        "libraries": _libraries(),
        "variables": variables(os.environ),
    }


def variables(found: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that change how libraries communicate, without those that look like secrets."""
    return {
        name: value
        for name, value in sorted(found.items())
        if name.startswith(_VARIABLES) and not any(part in name for part in _SECRETS)
    }


def settings(config: pytest.Config, options: Options) -> list[dict[str, Any]]:
    """Return every option of the plugin with its value and its source, and what pytest was given."""
    rows = [
        {"name": row.flag, "value": _value(row.name, options), "source": options.sources[row.name]}
        for row in TABLE
    ]
    arguments = " ".join(config.invocation_params.args)
    return [
        *rows,
        {"name": "arguments", "value": arguments, "source": "command line"},
        {"name": "PYTEST_ADDOPTS", "value": os.environ.get("PYTEST_ADDOPTS", ""), "source": "environment"},
        {"name": "-o", "value": list(config.option.override_ini or ()), "source": "command line"},
        {"name": "ini file", "value": config.inipath.name if config.inipath else "none", "source": "pytest"},
    ]


def _value(name: str, options: Options) -> Any:
    if name == "backend":
        return [each.name for each in options.backends]
    value = getattr(options, name)
    if name == "implementation":
        return value.name
    if name == "shard":
        return None if value is None else str(value)
    return list(value) if isinstance(value, tuple) else value


def _libraries() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
