from __future__ import annotations

import os

import pytest
import torch  # noqa: F401 - pytester's sessions in this process forget what they import, and torch takes no second import

pytest_plugins = ["pytester"]

TWO_DEVICES = """
from pytest_vdist import Availability, DeviceBackend

BACKEND = DeviceBackend(
    name="twodev",
    device_type="cpu",
    process_group_backend="gloo",
    probe=lambda: Availability(2, "two devices"),
    library_version=lambda: "twolib 7",
    reduction_dtypes=("float32",),
    movement_dtypes=("float32",),
)
"""


@pytest.fixture
def plain_sessions(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start pytester's sessions without variables from outside and without the plugin of Hypothesis.

    That plugin imports Hypothesis at the end of every session, which costs more than the rest of it.
    """
    for variable in [name for name in os.environ if name.startswith("VDIST_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:hypothesispytest")


@pytest.fixture
def twodev(pytester: pytest.Pytester) -> None:
    """Install a distribution that registers the backend `twodev`, which has two devices."""
    pytester.makepyfile(twodev_backend=TWO_DEVICES)
    metadata = pytester.mkdir("twodev-1.0.dist-info")
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: twodev\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[pytest_vdist.backends]\ntwodev = twodev_backend:BACKEND\n")
    pytester.syspathinsert()
