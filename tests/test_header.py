from __future__ import annotations

import pytest
import torch

pytestmark = pytest.mark.usefixtures("plain_sessions")


def vdist_lines(result: pytest.RunResult) -> list[str]:
    return [line.removeprefix("vdist: ") for line in result.outlines if line.startswith("vdist: ")]


def test_an_unused_plugin_prints_nothing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_nothing(): pass")
    result = pytester.runpytest()
    assert vdist_lines(result) == []
    result.assert_outcomes(passed=1)


def test_an_unused_plugin_imports_none_of_the_heavy_libraries(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys

        def test_nothing():
            heavy = {"torch", "hypothesis", "multiprocess", "numpy", "cloudpickle", "xdist.dsession"}
            assert "pytest_vdist.plugin" in sys.modules
            assert heavy & set(sys.modules) == set()
        """
    )
    pytester.runpytest_subprocess().assert_outcomes(passed=1)


def test_the_header_names_all_that_decides_what_is_tested(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest("--vdist-backend=cpu")
    assert vdist_lines(result) == [
        f"device cpu (gloo of torch {torch.__version__}) [command line]",
        f"torch {torch.__version__}",
        "implementation reference",
        "subgroups by new_group",
        "compile eager",
        "world sizes 1, 2, 3, 4",
        "deadline of a run 60 s",
        "random programs smoke, seed 0",
    ]


def test_the_header_says_where_each_value_comes_from(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makeini("[pytest]\nvdist_timeout = 7.5")
    monkeypatch.setenv("VDIST_WORLD_SIZES", "2")
    lines = vdist_lines(pytester.runpytest("--vdist-backend=cpu"))
    assert lines[0].endswith(" [command line]")
    assert lines[-3:-1] == [
        "world sizes 2 [VDIST_WORLD_SIZES in the environment]",
        "deadline of a run 7.5 s [ini file tox.ini]",
    ]


def test_the_header_says_limits_of_groups_where_they_are_set(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VDIST_CPU_DISTRIBUTED_TIMEOUT_SECONDS", "2.5")
    lines = vdist_lines(pytester.runpytest("--vdist-backend=cpu", "--vdist-distributed-timeout-seconds=600"))
    assert lines[-3:-1] == [
        "limit of device groups 600 s [command line]",
        "limit of CPU groups 2.5 s [VDIST_CPU_DISTRIBUTED_TIMEOUT_SECONDS in the environment]",
    ]


def test_the_header_says_which_world_sizes_are_left_out_on_which_device(
    pytester: pytest.Pytester, twodev: None
) -> None:
    lines = vdist_lines(pytester.runpytest("--vdist-backend=cpu,twodev"))
    assert lines[0] == f"device cpu (gloo of torch {torch.__version__}), twodev (twolib 7) [command line]"
    assert "world sizes on cpu 1, 2, 3, 4" in lines
    assert "world sizes on twodev 1, 2; left out for lack of devices: 3, 4" in lines


def test_the_header_says_how_many_ranks_share_a_device_or_that_they_could(
    pytester: pytest.Pytester, sharable: None
) -> None:
    alone = vdist_lines(pytester.runpytest("--vdist-backend=sharable"))
    assert (
        "world sizes 1, 2; left out for lack of devices: 3, 4 (--vdist-ranks-per-device=2 lets ranks share)"
        in alone
    )
    shared = vdist_lines(pytester.runpytest("--vdist-backend=sharable", "--vdist-ranks-per-device=3"))
    assert "world sizes 1, 2, 3, 4; ranks share devices in 3, 4 [command line]" in shared


def test_the_header_says_how_many_runs_have_a_device_at_once_if_more_than_one_may(
    pytester: pytest.Pytester,
) -> None:
    lines = vdist_lines(pytester.runpytest("--vdist-runs-per-device=3"))
    assert "runs at once on a device 3 [command line]" in lines
    assert not any("runs at once" in line for line in vdist_lines(pytester.runpytest("--vdist-seed=1")))
