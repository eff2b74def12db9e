"""Device backends that a conftest.py gives by the hook pytest_vdist_backends."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.usefixtures("plain_sessions")

CONFTEST = """
from pytest_vdist import Availability, DeviceBackend

def backend(name, devices=2):
    probe = lambda: Availability(devices, "two lamps on the board", "plug it in")
    return DeviceBackend(name, "cpu", "gloo", probe, lambda: "lamp 1", ("float32",), ("float32",))

def pytest_vdist_backends(config):
    return {returned}
"""
TEST = """
import torch

def test_sum(distributed_run, backend):
    def body():
        x = torch.ones(1)
        torch.distributed.all_reduce(x)
        return x.item()

    assert (backend, distributed_run(body)) == ("lamp", [2.0, 2.0])
"""


def session(pytester: pytest.Pytester, returned: str, *arguments: str, test: str = TEST) -> pytest.RunResult:
    pytester.makeconftest(CONFTEST.replace("{returned}", returned))
    pytester.makepyfile(test_lamp=test)
    return pytester.runpytest_subprocess(*arguments)


def usage_error(result: pytest.RunResult) -> str:
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (text,) = [line for line in result.stderr.str().splitlines() if line.startswith("ERROR: ")]
    return text.removeprefix("ERROR: ")


def test_a_backend_of_a_conftest_runs_tests(pytester: pytest.Pytester) -> None:
    session(pytester, "[backend('lamp')]", "--vdist-backend=lamp").assert_outcomes(passed=1)


def test_workers_of_xdist_know_it_too(pytester: pytest.Pytester) -> None:
    session(pytester, "[backend('lamp')]", "--vdist-backend=lamp", "-n1").assert_outcomes(passed=1)


def test_an_unknown_name_is_told_with_those_of_the_hook(pytester: pytest.Pytester) -> None:
    text = usage_error(session(pytester, "[backend('lamp')]", "--vdist-backend=lamb"))
    assert text.startswith("unknown backend, got 'lamb' from the command line; did you mean lamp? ")
    assert "the known backends are cpu, cuda, lamp, " in text


def test_a_known_backend_without_devices_is_told_from_an_unknown_one(pytester: pytest.Pytester) -> None:
    assert usage_error(session(pytester, "[backend('lamp', 0)]", "--vdist-backend=lamp")) == (
        "backend 'lamp' has no device on this machine, got 'lamp' from the command line; "
        "looked for two lamps on the board; to get it, plug it in"
    )


@pytest.mark.parametrize(
    ("returned", "name", "other"),
    [
        ("[backend('cpu')]", "cpu", "the plugin itself has one as well"),
        ("[backend('simdev')]", "simdev", "the distribution pytest-vdist registers one as well"),
        ("[backend('lamp'), backend('lamp')]", "lamp", "gives another as well"),
    ],
)
def test_a_name_that_is_taken_is_refused(
    pytester: pytest.Pytester, returned: str, name: str, other: str
) -> None:
    assert usage_error(session(pytester, returned, f"--vdist-backend={name}")) == (
        f"the hook pytest_vdist_backends gives a backend {name!r}, and {other}, got {name!r} from the "
        "command line; give it another name in the conftest.py or plugin that implements the hook"
    )


@pytest.mark.parametrize("returned", ["'lamp'", "[3]", "backend"])
def test_anything_but_backends_is_refused(pytester: pytest.Pytester, returned: str) -> None:
    text = usage_error(session(pytester, returned, "--vdist-backend=lamp"))
    assert text.startswith("the hook pytest_vdist_backends must return a sequence of DeviceBackend, got ")
    assert text.endswith("; repair the conftest.py or plugin that implements it")


def test_without_a_choice_the_hook_is_not_asked(pytester: pytest.Pytester) -> None:
    session(pytester, "1 / 0", test="def test_one(): pass").assert_outcomes(passed=1)
