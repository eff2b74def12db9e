"""XpuCommunicator on the CPU and on the simulated accelerator: it needs no XPU."""

from __future__ import annotations

import pytest

from pytest_vdist.certificate.suites import SUITES
from pytest_vdist.reference_impl.simdev import build

XPU_ON_OTHER_DEVICES = """
from pytest_vdist.implementations.reference import ReferenceImplementation
from pytest_vdist.reference_impl.communicators.xpu import XpuCommunicator
from pytest_vdist.reference_impl.platform import register_communicator

def make():
    for device_type in ("cpu", "simdev"):
        register_communicator(device_type, XpuCommunicator)
    return ReferenceImplementation()
"""
PROVES_WHICH_ONE_RUNS = """
def test_the_communicator(coordinator_run):
    names = coordinator_run(lambda group: type(group.device_communicator).__name__)
    assert names == ["XpuCommunicator"] * 2
"""


@pytest.fixture(scope="module")
def cache_of_simdev() -> str:
    """Return where the extension is built once for all sessions, whose home pytester moves."""
    return str(build.cache_folder())


@pytest.mark.parametrize("device", ["cpu", "simdev"])
def test_the_suites_pass_with_the_communicator_of_xpu(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, cache_of_simdev: str, device: str
) -> None:
    monkeypatch.setenv(build.CACHE_VARIABLE, cache_of_simdev)
    pytester.makepyfile(adapter=XPU_ON_OTHER_DEVICES, test_which=PROVES_WHICH_ONE_RUNS)
    result = pytester.runpytest_subprocess(
        f"--vdist-backend={device}",
        "--vdist-impl=adapter.py:make",
        "--vdist-world-sizes=2,4",
        "--vdist-timeout=60",
        "test_which.py",
        *(str(SUITES / "collectives" / f"test_{name}.py") for name in ("gather", "all_gatherv", "broadcast")),
    )
    assert result.ret == 0, result.stdout.str()
