"""Devices that ranks share: what is told of them, and how a failure on them is seen again."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pytest_vdist.certification.recorder import Expected, reproduce
from pytest_vdist.options import options_of


def probed(devices: int, *arguments: str) -> str:
    command = [sys.executable, "-c", "from pytest_vdist.cli import main; main()", "probe", "--backend=simdev"]
    environment = {**os.environ, "SIMDEV_COUNT": str(devices)}
    return subprocess.run(
        [*command, *arguments], env=environment, capture_output=True, text=True, timeout=120, check=True
    ).stdout


def test_a_manifest_says_how_many_ranks_shared_a_device_if_any_did() -> None:
    assert "`vdist probe`: 3 ranks, 2 on a device, on simdev showed it." in probed(2, "--ranks-per-device=4")
    assert "`vdist probe`: 3 ranks on simdev showed it." in probed(3, "--ranks-per-device=4")
    assert "that needs 3 devices, or --ranks-per-device=3" in probed(1, "--ranks-per-device=2")


@pytest.mark.parametrize(
    ("flag", "problem"), [("--timeout=1e9", "a day"), ("--ranks-per-device=17", "1 to 16")]
)
def test_values_of_the_probe_that_cannot_hold_are_refused(
    flag: str, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from pytest_vdist.cli import main  # noqa: PLC0415 - beside the command that it stands for

    with pytest.raises(SystemExit):
        main(["probe", flag])
    assert problem in capsys.readouterr().err


@pytest.mark.usefixtures("plain_sessions")
def test_the_command_that_shows_a_failure_again_lets_ranks_share_too(pytester: pytest.Pytester) -> None:
    options = options_of(pytester.parseconfigure("--vdist-backend=cpu", "--vdist-ranks-per-device=2"))
    mode = {"backend": "cpu", "split_group": "off", "compile": None}
    command = reproduce(options, Expected("groups/test_layouts.py::test_it[cpu-4]", ("VD-GRP-001",), mode))
    assert command.endswith("--vdist-backend=cpu --vdist-ranks-per-device=2")
