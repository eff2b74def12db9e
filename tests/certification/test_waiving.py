"""Waivers in sessions that certify nothing, and the claims of manifests."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

pytestmark = pytest.mark.usefixtures("plain_sessions")

TESTS = """
import pytest

@pytest.mark.vdist_requirement("VD-AR-001")
def test_known():
    assert 1 + 1 == 3

@pytest.mark.vdist_requirement("VD-AR-002")
def test_repaired():
    pass

@pytest.mark.vdist_requirement("VD-AR-003")
def test_expired():
    assert True
"""
WAIVER = """
[[waiver]]
requirement = "{}"
issue = "https://example.org/1"
owner = "me"
reason = "known"
expires = {}
"""


def run(
    pytester: pytest.Pytester, *waivers: tuple[str, str], more: str = "", arguments: Sequence[str] = ()
) -> pytest.RunResult:
    pytester.makepyfile(TESTS + more)
    text = 'schema = "vdist-waivers/1"\n' + "".join(WAIVER.format(*each) for each in waivers)
    (pytester.path / "w.toml").write_text(text)
    return pytester.runpytest_inprocess("--vdist-waivers=w.toml", "-v", *arguments)


def test_a_failure_that_is_waived_is_run_and_told_and_does_not_fail_the_session(
    pytester: pytest.Pytester,
) -> None:
    result = run(pytester, ("VD-AR-001", "2999-01-01"))
    result.stdout.fnmatch_lines(["*::test_known WAIVED*", "*2 passed,*1 waived*"])
    assert result.ret == 0


def test_stale_waivers_are_errors_with_an_exit_code_of_their_own(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        ("VD-AR-001", "2999-01-01"),
        ("VD-AR-002", "2999-01-01"),
        ("VD-AR-003", "2020-01-01"),
        ("VD-AR-004", "2999-01-01"),
    )
    place = "(all its tests, https://example.org/1)"
    end = "; take it out or repair it"
    told = [line for line in result.stdout.lines if line.startswith("ERROR waiver")]
    assert told == [
        f"ERROR waiver of VD-AR-002 {place}: everything that it covers passed{end}",
        f"ERROR waiver of VD-AR-003 {place}: expired since 2020-01-01{end}",
        f"ERROR waiver of VD-AR-004 {place}: no test matches it{end}",
    ]
    assert result.ret == 11


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["-k", "expired"], 0),
        (["test_elsewhere.py"], 0),
        (["-n1"], 11),
    ],
)
def test_what_a_session_was_not_to_run_makes_no_waiver_stale(
    pytester: pytest.Pytester, arguments: list[str], code: int
) -> None:
    pytester.makepyfile(test_elsewhere="def test_another(): pass")
    more = '@pytest.mark.vdist_requirement("VD-AR-003")\ndef test_another():\n    assert 0\n'
    waivers = [("VD-AR-001", "2999-01-01"), ("VD-AR-003", "2999-01-01")]
    # Of VD-AR-002 all passes; -k leaves nothing of VD-AR-001, and of VD-AR-003 the test that passes.
    waivers += [("VD-AR-002", "2999-01-01")] if arguments == ["-n1"] else []
    result = run(pytester, *waivers, more=more, arguments=arguments)
    stale = [line for line in result.stdout.lines if line.startswith("ERROR waiver")]
    assert [line.split()[3] for line in stale] == (["VD-AR-002"] if code else [])
    assert result.ret == code


def test_an_expired_waiver_waives_nothing(pytester: pytest.Pytester) -> None:
    assert run(pytester, ("VD-AR-001", "2020-01-01")).ret == 1


def test_a_manifest_replaces_the_claims_that_tests_see(pytester: pytest.Pytester) -> None:
    (pytester.path / "m.toml").write_text(
        'schema = "vdist-manifest/1"\n[device]\nname = "cpu"\n[unsupported]\ngather = "none here"\n'
    )
    pytester.makepyfile(
        "def test_claims(capabilities):\n    assert capabilities.unsupported == {'gather': 'none here'}\n"
    )
    result = pytester.runpytest_subprocess("--vdist-backend=cpu", "--vdist-manifest=m.toml")
    result.assert_outcomes(passed=1)
    suite = pytester.runpytest_subprocess(
        "--vdist-backend=cpu",
        "--vdist-manifest=m.toml",
        "--vdist-world-sizes=2",
        "-rs",
        "--pyargs",
        "pytest_vdist.suites.collectives.test_gather",
    )
    suite.stdout.fnmatch_lines(["SKIPPED * unsupported: gather: none here"])
    assert suite.ret == 0


def test_tests_of_other_things_do_without_what_is_declared_away(pytester: pytest.Pytester) -> None:
    """Groups are judged by the calls that are there; what is about messages is skipped, with the reason."""
    (pytester.path / "m.toml").write_text(
        'schema = "vdist-manifest/1"\n[device]\nname = "cpu"\n[unsupported]\nsend = "none here"\n'
    )
    pytester.makeconftest(
        """
        import pytest
        from pytest_vdist.reference_impl.coordinator import GroupCoordinator

        @pytest.fixture(autouse=True)
        def _no_messages(distributed_run, world_size):
            def refuse(*arguments, **named):
                raise NotImplementedError("none here")

            def take_away():
                GroupCoordinator.send = GroupCoordinator.recv = refuse

            distributed_run(take_away, world_size=world_size, init_process_group=False)
        """
    )
    suites = [
        "point_to_point.test_peers",
        "groups.test_layouts",
        "groups.test_subgroup_creation",
        "contexts.test_contexts",
    ]
    result = pytester.runpytest_subprocess(
        "--vdist-backend=cpu",
        "--vdist-manifest=m.toml",
        "--vdist-world-sizes=2",
        "-rs",
        "--pyargs",
        *(f"pytest_vdist.suites.{name}" for name in suites),
    )
    assert result.ret == 0, result.stdout.str()
    result.stdout.fnmatch_lines(["SKIPPED * unsupported: send: none here"])


def test_tests_of_a_users_own_may_name_the_operations_that_they_need(pytester: pytest.Pytester) -> None:
    (pytester.path / "m.toml").write_text(
        'schema = "vdist-manifest/1"\n[device]\nname = "cpu"\n[unsupported]\ngather = "none here"\n'
    )
    source = """
    import pytest

    @pytest.mark.vdist_operations({names})
    def test_own(backend): pass
    """
    pytester.makepyfile(test_here=source.format(names='"send", "gather"'))
    result = pytester.runpytest("--vdist-backend=cpu", "--vdist-manifest=m.toml", "-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED * unsupported: gather: none here"])
    pytester.makepyfile(test_here=source.format(names='"sned"'))
    wrong = pytester.runpytest("--vdist-backend=cpu")
    assert wrong.ret == pytest.ExitCode.INTERRUPTED
    wrong.stdout.fnmatch_lines(
        ["*marker vdist_operations on test_here.py::test_own names 'sned'; the operations are all_reduce, *"]
    )
