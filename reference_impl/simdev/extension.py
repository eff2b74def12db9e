"""The C++ part of the simulated device, loaded once per process."""

from __future__ import annotations

import functools
import importlib.util
from types import ModuleType

from .build import MODULE_NAME, build_extension


@functools.cache
def extension() -> ModuleType:
    """Return the extension, built if need be. Loading it makes torch know the device. Raises BuildError."""
    path = build_extension()
    found = importlib.util.spec_from_file_location(MODULE_NAME, path)
    if found is None or found.loader is None:
        raise ImportError(f"Python has no loader for {path}")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module
