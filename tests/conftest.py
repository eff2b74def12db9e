from __future__ import annotations

import os

import pytest
import torch  # noqa: F401 - pytester's sessions in this process forget what they import, and torch takes no second import

from pytest_vdist.reference_impl.simdev import build

pytest_plugins = ["pytester"]

SIMDEV_CACHE = build.cache_folder()

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
def simdev_as_built(plain_sessions: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pytester's sessions, whose home is another, find the simulated device built."""
    monkeypatch.setenv(build.CACHE_VARIABLE, str(SIMDEV_CACHE))


@pytest.fixture
def twodev(pytester: pytest.Pytester) -> None:
    """Install a distribution that registers the backend `twodev`, which has two devices."""
    pytester.makepyfile(twodev_backend=TWO_DEVICES)
    _install(pytester, "twodev")


@pytest.fixture
def sharable(pytester: pytest.Pytester) -> None:
    """Install a distribution that registers the backend `sharable`: two devices, which ranks may share."""
    text = TWO_DEVICES.replace('"twodev"', '"sharable"').replace("\n)", "\n    sharing_environment={},\n)")
    pytester.makepyfile(sharable_backend=text)
    _install(pytester, "sharable")


def _install(pytester: pytest.Pytester, name: str) -> None:
    metadata = pytester.mkdir(f"{name}-1.0.dist-info")
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[pytest_vdist.backends]\n{name} = {name}_backend:BACKEND\n")
    pytester.syspathinsert()
