from __future__ import annotations

import pytest
import torch

pytestmark = pytest.mark.usefixtures("plain_sessions")


def usage_error(pytester: pytest.Pytester, *arguments: str) -> str:
    result = pytester.runpytest(*arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (text,) = [line for line in result.stderr.str().splitlines() if line]
    return text


@pytest.mark.skipif(torch.xpu.is_available(), reason="this machine has the device")
@pytest.mark.parametrize("arguments", [(), ("-n2",)], ids=["plain", "xdist"])
def test_a_device_that_is_not_there_is_a_usage_error_before_any_test(
    pytester: pytest.Pytester, arguments: tuple[str, ...]
) -> None:
    pytester.makeconftest("def pytest_sessionstart(): open('started', 'w').close()")
    pytester.makepyfile("def test_nothing(): open('ran', 'w').close()")
    text = usage_error(pytester, "--vdist-backend=xpu", *arguments)
    assert text.startswith(
        "ERROR: backend 'xpu' has no device on this machine, got 'xpu' from the command line; "
        "looked for devices by torch.xpu.device_count(), found 0, and "
    )
    assert not (pytester.path / "started").exists()
    assert not (pytester.path / "ran").exists()


@pytest.mark.skipif(torch.xpu.is_available(), reason="this machine has the device")
def test_one_missing_device_among_several_is_a_usage_error(pytester: pytest.Pytester) -> None:
    assert "backend 'xpu' has no device" in usage_error(pytester, "--vdist-backend=cpu,xpu")


def test_the_three_refusals_of_a_device_have_texts_of_their_own(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown = usage_error(pytester, "--vdist-backend=nope")
    (pytester.path / "acme-1.0.dist-info").mkdir()
    (pytester.path / "acme-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\n")
    (pytester.path / "acme-1.0.dist-info" / "entry_points.txt").write_text(
        "[pytest_vdist.backends]\nacme = acme_backend:BACKEND\n"
    )
    pytester.syspathinsert()
    broken = usage_error(pytester, "--vdist-backend=acme")
    monkeypatch.setenv("VDIST_DEVICE", "cpu")
    variable = usage_error(pytester)
    assert unknown.startswith("ERROR: unknown backend, got 'nope'")
    assert broken.startswith("ERROR: cannot load backend 'acme' from the command line: the entry point acme")
    assert "of the distribution acme raised ModuleNotFoundError: No module named 'acme_backend'" in broken
    assert variable.startswith("ERROR: unknown variable, got 'VDIST_DEVICE' from the environment")


def test_a_vendors_broken_entry_point_does_not_disturb_other_sessions(pytester: pytest.Pytester) -> None:
    metadata = pytester.mkdir("acme-1.0.dist-info")
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\n")
    (metadata / "entry_points.txt").write_text("[pytest_vdist.backends]\ncpu = acme_backend:BACKEND\n")
    pytester.syspathinsert()
    pytester.makepyfile("def test_nothing(): pass")
    pytester.runpytest().assert_outcomes(passed=1)


def test_the_markers_are_registered(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.vdist_requirement("VD-AR-001")
        @pytest.mark.vdist_world_size(min=1)
        def test_marked(): pass
        """
    )
    pytester.runpytest("--strict-markers").assert_outcomes(passed=1)
    pytester.runpytest("--markers").stdout.fnmatch_lines(
        ["@pytest.mark.vdist_requirement(*ids): *", "@pytest.mark.vdist_world_size(min=1, *): *"]
    )


def test_the_fixtures_of_the_modes_are_documented(pytester: pytest.Pytester) -> None:
    text = pytester.runpytest("--fixtures").stdout.str()
    for name in ("backend", "world_size", "split_group", "compile_mode"):
        assert f"{name} [session scope]" in text


def test_a_dtype_that_torch_does_not_have_is_named_with_who_declares_it(pytester: pytest.Pytester) -> None:
    pytester.makeconftest("""
        from dataclasses import replace

        from pytest_vdist.backends.cpu import BACKEND

        def pytest_vdist_backends(config):
            return [replace(BACKEND, name="mine", reduction_dtypes=("fp32",))]
    """)
    pytester.makepyfile("def test_dtypes(reduction_dtypes, backend): ...")
    result = pytester.runpytest_subprocess("--vdist-backend=mine")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["*BackendError: reduction_dtypes of device backend 'mine' names 'fp32', and torch * has no such *"]
    )
