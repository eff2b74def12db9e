"""A plugin, named by -p, that puts a few tests and their registry in place of the shipped ones."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from pytest_vdist.certificate import requirements

_HERE = Path(__file__).parent.resolve()
_USERS = ("suite_items", "certification.suite_source", "certification.frozen", "certification.surroundings")

requirements.REGISTRY_FILE = _HERE / "requirements.toml"
for _name in _USERS:
    _module: Any = importlib.import_module(f"pytest_vdist.{_name}")
    _module.SUITES = _HERE / "suites"
_module.REGISTRY_FILE = requirements.REGISTRY_FILE
