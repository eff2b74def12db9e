"""A plugin, named by -p, that puts a few tests and their registry in place of the shipped ones."""

from __future__ import annotations

import importlib
from pathlib import Path

from pytest_vdist.certificate import requirements

_HERE = Path(__file__).parent.resolve()

for _name in (
    "suite_items",
    "certification.suite_source",
    "certification.frozen",
    "certification.surroundings",
):
    importlib.import_module(f"pytest_vdist.{_name}").SUITES = _HERE / "suites"
requirements.REGISTRY_FILE = _HERE / "requirements.toml"
importlib.import_module("pytest_vdist.certification.surroundings").REGISTRY_FILE = requirements.REGISTRY_FILE
