"""Control mutants: a session that does not notice its own implementation being wrong has judged nothing."""

from __future__ import annotations

import pytest

from pytest_vdist.certificate.controls import CONTROLS
from pytest_vdist.implementations.spec import ImplementationSpec
from pytest_vdist.mutation.control import ControlSpec

plain = pytest.mark.usefixtures("plain_sessions")

TESTS = """
import threading
import pytest
import torch

@pytest.mark.vdist_requirement("VD-AR-001")
def test_sum(coordinator_run, world_size):
    def body(group):
        return group.all_reduce(torch.tensor([1.0 + group.rank], device=group.device)).item()
    assert coordinator_run(body, world_size=world_size) == [world_size * (world_size + 1) / 2] * world_size

@pytest.mark.vdist_requirement("VD-AG-001")
def test_gathered(coordinator_run, world_size):
    def body(group):
        return group.all_gather(torch.tensor([group.rank], device=group.device)).tolist()
    assert coordinator_run(body, world_size=world_size) == [list(range(world_size))] * world_size

@pytest.mark.vdist_requirement("VD-BAR-001")
def test_barrier(coordinator_run, world_size, tmp_path):
    def body(group, folder):
        path = f"{folder}/entered"
        if group.rank == 0:
            threading.Event().wait(0.5)
            open(path, "w").close()
        group.barrier()
        import os
        return os.path.exists(path)
    assert coordinator_run(body, str(tmp_path), world_size=world_size) == [True] * world_size
"""
RUN = ("--vdist-backend=cpu", "--vdist-world-sizes=2", "--vdist-control=on", "-q")


@plain
def test_a_session_that_notices_all_three_goes_on_to_its_tests(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(TESTS)
    result = pytester.runpytest_subprocess(*RUN)
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["control mutants: 3 of 3 noticed"])
    assert result.ret == 0


@plain
def test_a_session_whose_test_is_deaf_ends_with_exit_code_15(pytester: pytest.Pytester) -> None:
    deaf = TESTS.replace("== [world_size * (world_size + 1) / 2] * world_size", "!= []")
    pytester.makepyfile(test_deaf=deaf)
    result = pytester.runpytest_subprocess(*RUN)
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(
        [
            "control mutants: 2 of 3 noticed",
            "ERROR control mutant not noticed: the sum lacks the last rank (cpu): "
            "test_deaf.py::test_sum[[]cpu-2*] passed",
        ]
    )
    assert result.ret == 15


@plain
def test_a_selection_without_such_tests_is_no_proof(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_one():\n    pass\n\ndef test_bad():\n    assert 0\n")
    result = pytester.runpytest_subprocess(*RUN, "-k", "one")
    result.stdout.fnmatch_lines(
        [
            "ERROR control mutant not noticed: the barrier lets everybody through (cpu): "
            "no test of VD-BAR-001 with two ranks or more is selected"
        ]
    )
    assert result.ret == 15
    assert pytester.runpytest_subprocess(*RUN).ret == 1, (
        "a failure goes before a control mutant that was not noticed"
    )


@plain
def test_several_processes_are_refused(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(TESTS)
    result = pytester.runpytest_subprocess(*RUN, "-n2")
    result.stderr.fnmatch_lines(
        [
            "ERROR: control mutants need all tests in one process, got -n 2 with the command line; leave out "
            "-n, or pass --vdist-control=off"
        ]
    )
    assert result.ret == pytest.ExitCode.USAGE_ERROR


def test_an_unknown_control_mutant_is_refused() -> None:
    spec = ImplementationSpec.resolve("reference", "the default")
    with pytest.raises(ValueError, match="there is no control mutant 'none'; there are the sum lacks"):
        ControlSpec.of(spec, "none")


@pytest.mark.parametrize("control", CONTROLS)
def test_a_control_mutant_claims_what_the_implementation_claims(control: str) -> None:
    spec = ImplementationSpec.resolve("reference", "the default")
    wrapped = ControlSpec.of(spec, control).load()
    assert wrapped.name == f"reference, but {control}"
    assert wrapped.capabilities("cpu") == spec.load().capabilities("cpu")
