"""Hooks of this plugin, for conftest.py files and other plugins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_vdist.backends.base import DeviceBackend


@pytest.hookspec
def pytest_vdist_backends(config: pytest.Config) -> Sequence[DeviceBackend]:  # type: ignore[empty-body]
    """Return device backends that `--vdist-backend` can name, beside those of the entry points.

    It is called once, when a name other than the default is looked up, in the controller and in the workers
    of xdist. A conftest.py must be in the root directory of the run, or one that the command line names.
    """
