"""What must be the same on all nodes: functions travel as bytes of one Python's code, tensors as torch's."""

from __future__ import annotations

import platform
from importlib import metadata


def software() -> str:
    """Return the versions in words."""
    names = ("torch", "pytest-vdist", "cloudpickle")
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in names)
    return f"Python {platform.python_version()}, {versions}"
