from __future__ import annotations

import pytest

from pytest_vdist.certificate.requirements import registry
from pytest_vdist.options import REFERENCE_VARIABLES, TABLE, GroupLimits, Row, options_of

GIVEN = {
    "backend": ("cpu", "cpu"),
    "implementation": ("reference", "reference"),
    "split_group": ("both", "1"),
    "compile_modes": ("all", "all"),
    "world_sizes": ("2", "2"),
    "ranks_per_device": ("3", "3"),
    "runs_per_device": ("2", "2"),
    "timeout": ("5", "5"),
    "distributed_timeout_seconds": ("600", "600"),
    "cpu_distributed_timeout_seconds": ("7.5", "7.5"),
    "effort": ("default", "default"),
    "seed": ("7", "7"),
    "replay": ("{}", "{}"),
    "interface": ("vllm", "vllm"),
    "performance": ("full", "full"),
    "shard": ("1/2", "2/2"),
    "verify": ("2", "2"),
    "control": ("on", "on"),
    "launcher": ("local", "local"),
    "join_timeout": ("5", "5"),
    "certify": ("out", "out"),
    "profiles": ("core", "core"),
    "manifest": ("manifest.toml", "manifest.toml"),
    "waivers": ("waivers.toml", "waivers.toml"),
}

SHARD = "shard must be I/N, with whole numbers I from 1 to N and N up to 256"
MANIFEST = 'schema = "vdist-manifest/1"\n[device]\nname = "cpu"\n'
WAIVERS = """schema = "vdist-waivers/1"
[[waiver]]
requirement = "VD-AR-001"
issue = "https://example.org/1"
owner = "me"
reason = "known"
expires = 2999-01-01
"""

pytestmark = pytest.mark.usefixtures("plain_sessions", "files")


@pytest.fixture
def files(pytester: pytest.Pytester) -> None:
    """Write the files that options name."""
    (pytester.path / "manifest.toml").write_text(MANIFEST)
    (pytester.path / "waivers.toml").write_text(WAIVERS)


def usage_error(pytester: pytest.Pytester, *arguments: str) -> str:
    """Return the text of the usage error that a session ends with before anything starts."""
    result = pytester.runpytest(*arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (text,) = [line for line in result.stderr.str().splitlines() if line]
    return text


def test_without_any_setting_the_defaults_hold(pytester: pytest.Pytester) -> None:
    options = options_of(pytester.parseconfigure())
    assert [backend.name for backend in options.backends] == ["cpu"]
    assert options.implementation.name == "reference"
    assert options.split_group == (False,)
    assert options.compile_modes == ("eager",)
    assert options.world_sizes == (1, 2, 3, 4)
    assert options.timeout == 60.0
    assert options.limits == GroupLimits(None, None)
    assert (options.verify, options.control) == (1, False)
    assert (options.effort, options.seed, options.replay) == ("smoke", 0, None)
    assert set(options.sources.values()) == {"default"}
    assert not options.used


def test_every_option_can_be_set_on_the_command_line(pytester: pytest.Pytester) -> None:
    options = options_of(
        pytester.parseconfigure(
            "--vdist-backend=cpu",
            "--vdist-impl=pkg.mod:factory",
            "--vdist-split-group=both",
            "--vdist-compile=eager,inductor",
            "--vdist-world-sizes=2, 4",
            "--vdist-ranks-per-device=16",
            "--vdist-runs-per-device=8",
            "--vdist-timeout=2.5",
            "--vdist-distributed-timeout-seconds=86400",
            "--vdist-cpu-distributed-timeout-seconds=0.5",
            "--vdist-verify=4",
            "--vdist-control=on",
            "--vdist-effort=certify",
            "--vdist-seed=4294967295",
            '--vdist-replay={"world_size": 2}',
            "--vdist-interface=vllm=a.b:C, x.y:Base=a.b:D",
            "--vdist-performance=full",
            "--vdist-shard=2/3",
            "--vdist-launcher=local",
            "--vdist-join-timeout=5",
            "--vdist-certify=out",
            "--vdist-profile=core,numerics",
            "--vdist-manifest=manifest.toml",
            "--vdist-waivers=waivers.toml",
        )
    )
    assert options.implementation.target == "pkg.mod:factory"
    assert options.split_group == (False, True)
    assert options.compile_modes == ("eager", "inductor")
    assert options.world_sizes == (2, 4)
    assert (options.ranks_per_device, options.runs_per_device) == (16, 8)
    assert options.timeout == 2.5
    assert options.limits == GroupLimits(86_400, 0.5)
    assert (options.verify, options.control) == (4, True)
    assert (options.effort, options.seed) == ("certify", 2**32 - 1)
    assert options.replay == '{"world_size": 2}'
    assert options.interface == (("vllm", "a.b:C"), ("x.y:Base", "a.b:D"))
    assert (options.performance, str(options.shard)) == ("full", "2/3")
    assert (options.certify, options.profiles) == ("out", ("core", "numerics"))
    assert (options.manifest, options.waivers) == ("manifest.toml", "waivers.toml")
    assert set(options.sources.values()) == {"command line"}


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_the_environment_sets_an_option(
    row: Row, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(row.variable, GIVEN[row.name][1])
    options = options_of(pytester.parseconfigure())
    assert options.sources[row.name] == f"{row.variable} in the environment"


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_the_ini_file_sets_an_option(row: Row, pytester: pytest.Pytester) -> None:
    pytester.makepyprojecttoml(f'[tool.pytest.ini_options]\n{row.ini} = "{GIVEN[row.name][0]}"')
    assert options_of(pytester.parseconfigure()).sources[row.name] == "ini file pyproject.toml"


def test_command_line_goes_before_environment_before_ini_file(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makeini("[pytest]\nvdist_timeout = 3")
    from_ini = options_of(pytester.parseconfigure())
    monkeypatch.setenv("VDIST_TIMEOUT", "2")
    from_environment = options_of(pytester.parseconfigure())
    from_command_line = options_of(pytester.parseconfigure("--vdist-timeout=1"))
    assert (from_ini.timeout, from_environment.timeout, from_command_line.timeout) == (3.0, 2.0, 1.0)


def test_an_ini_value_that_the_command_line_overrides_names_the_command_line(
    pytester: pytest.Pytester,
) -> None:
    pytester.makeini("[pytest]\nvdist_timeout = 3")
    options = options_of(pytester.parseconfigure("-o", "vdist_timeout=4"))
    assert options.timeout == 4.0
    assert options.sources["timeout"] == "command line (-o vdist_timeout)"


@pytest.mark.parametrize(("text", "expected"), [("0", (False,)), ("1", (True,))])
def test_split_group_is_0_or_1_in_the_environment(
    text: str, expected: tuple[bool, ...], pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VDIST_DISTRIBUTED_USE_SPLIT_GROUP", text)
    assert options_of(pytester.parseconfigure()).split_group == expected


LONG_TIMEOUT = "timeout must be a number of seconds greater than 0 and at most 86400 (a day)"


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--vdist-world-sizes=0", "world size must be a whole number from 1 to 1024, got '0'"),
        ("--vdist-world-sizes=2,x", "world size must be a whole number from 1 to 1024, got 'x'"),
        ("--vdist-world-sizes=1025", "world size must be a whole number from 1 to 1024, got '1025'"),
        ("--vdist-world-sizes=2,", "world size must be a whole number from 1 to 1024, got ''"),
        ("--vdist-world-sizes=2,2", "world sizes must not repeat, got '2,2'"),
        ("--vdist-timeout=0", f"{LONG_TIMEOUT}, got '0'"),
        ("--vdist-timeout=nan", f"{LONG_TIMEOUT}, got 'nan'"),
        ("--vdist-timeout=inf", f"{LONG_TIMEOUT}, got 'inf'"),
        ("--vdist-timeout=86401", f"{LONG_TIMEOUT}, got '86401'"),
        ("--vdist-profile=cor", f"profile must be one of {', '.join(registry().profiles)}, got 'cor'"),
        ("--vdist-timeout=soon", f"{LONG_TIMEOUT}, got 'soon'"),
        ("--vdist-verify=0", "number of runs must be a whole number from 1 to 10000, got '0'"),
        ("--vdist-verify=10001", "number of runs must be a whole number from 1 to 10000, got '10001'"),
        ("--vdist-control=yes", "control mutants must be off or on, got 'yes'"),
        ("--vdist-effort=much", "effort must be one of smoke, default, certify, got 'much'"),
        (
            "--vdist-interface=sglang",
            "host must be one of reference, vllm, or pkg.mod:Base=pkg.mod:Class, got 'sglang'",
        ),
        ("--vdist-interface=vllm=a.b", "class must look like vllm=pkg.mod:Class, got 'vllm=a.b'"),
        ("--vdist-interface=vllm,vllm", "interfaces must not repeat, got 'vllm,vllm'"),
        ("--vdist-performance=all", "performance must be one of quick, full, got 'all'"),
        ("--vdist-shard=3/2", f"{SHARD}, got '3/2'"),
        ("--vdist-shard=0/2", f"{SHARD}, got '0/2'"),
        ("--vdist-shard=2", f"{SHARD}, got '2'"),
        ("--vdist-shard=1/257", f"{SHARD}, got '1/257'"),
        ("--vdist-seed=-1", "seed must be a whole number from 0 to 4294967295, got '-1'"),
        (
            "--vdist-replay=x.json",
            "program must be a file that is there, or text that begins with {, got 'x.json'",
        ),
        ("--vdist-split-group=1", "subgroup creation must be off, on or both, got '1'"),
        (
            "--vdist-compile=fast",
            "compile mode must be one of eager, aot_eager, inductor, cudagraph, or all, got 'fast'",
        ),
        ("--vdist-compile=eager,eager", "compile modes must not repeat, got 'eager,eager'"),
        ("--vdist-backend=", "backend names must not be empty, got ''"),
        ("--vdist-backend=cpu,cpu", "backend names must not repeat, got 'cpu,cpu'"),
        ("--vdist-impl=", "implementation must not be empty, got ''"),
    ],
)
def test_a_bad_value_is_a_usage_error_that_says_what_where_from_and_what_to_do(
    argument: str, message: str, pytester: pytest.Pytester
) -> None:
    flag = argument.partition("=")[0]
    (example,) = [row.example for row in TABLE if row.flag == flag]
    assert usage_error(pytester, argument) == f"ERROR: {message} from the command line; pass {flag}={example}"


def test_a_bad_value_in_the_environment_names_the_variable(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VDIST_WORLD_SIZES", "0")
    assert usage_error(pytester) == (
        "ERROR: world size must be a whole number from 1 to 1024, got '0' "
        "from VDIST_WORLD_SIZES in the environment; pass --vdist-world-sizes=2,4"
    )


def test_a_bad_split_group_in_the_environment_asks_for_0_or_1(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VDIST_DISTRIBUTED_USE_SPLIT_GROUP", "on")
    assert "must be 0 or 1 in the environment, got 'on' from VDIST_DIST" in usage_error(pytester)


def test_a_bad_value_in_an_ini_file_names_the_file(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nvdist_timeout = -1")
    assert "got '-1' from the ini file tox.ini; pass --vdist-timeout=60" in usage_error(pytester)


@pytest.mark.parametrize("given", ["0", "-3", "nan", "inf", "soon", "none", "", "86401", "0x10"])
@pytest.mark.parametrize("kind", ["distributed", "cpu_distributed"])
def test_a_limit_of_groups_that_cannot_hold_is_a_usage_error_that_says_why(
    kind: str, given: str, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    flag = f"--vdist-{kind.replace('_', '-')}-timeout-seconds"
    variable = f"VDIST_{kind.upper()}_TIMEOUT_SECONDS"
    must_be = "limit must be a number of seconds greater than 0 and at most 86400 (a day)"
    advice = f"pass {flag}={'600' if kind == 'distributed' else '60'}"

    on_command_line = usage_error(pytester, f"{flag}={given}")
    monkeypatch.setenv(variable, given)
    in_environment = usage_error(pytester)

    assert on_command_line == f"ERROR: {must_be}, got {given!r} from the command line; {advice}"
    assert in_environment == f"ERROR: {must_be}, got {given!r} from {variable} in the environment; {advice}"


def test_an_unknown_variable_is_a_usage_error_with_the_nearest_and_all_known_ones(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VDIST_BACKENDS", "cpu")
    text = usage_error(pytester)
    assert text.startswith(
        "ERROR: unknown variable, got 'VDIST_BACKENDS' from the environment; did you mean VDIST_BACKEND? "
        "unset it, the known ones are VDIST_BACKEND, VDIST_IMPL, "
    )
    assert all(variable in text for variable in REFERENCE_VARIABLES)


@pytest.mark.parametrize("variable", REFERENCE_VARIABLES)
def test_variables_of_the_reference_are_known(
    variable: str, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "1")
    assert not options_of(pytester.parseconfigure()).used


@pytest.mark.parametrize("variable", REFERENCE_VARIABLES)
def test_a_switch_of_the_reference_that_is_neither_on_nor_off_is_a_usage_error(
    variable: str, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "maybe")
    assert usage_error(pytester) == (
        f"ERROR: {variable} must be 0 or 1, got 'maybe' from the environment; set one of them, or unset it"
    )


def test_an_unknown_backend_is_a_usage_error(pytester: pytest.Pytester) -> None:
    text = usage_error(pytester, "--vdist-backend=cpuu")
    assert text.startswith("ERROR: unknown backend, got 'cpuu' from the command line; did you mean cpu? ")


def test_an_unknown_implementation_is_a_usage_error(pytester: pytest.Pytester) -> None:
    text = usage_error(pytester, "--vdist-impl=vlm")
    assert text.startswith("ERROR: unknown implementation, got 'vlm' from the command line; the known one")


def test_a_backend_that_is_not_selected_cannot_be_looked_up(pytester: pytest.Pytester) -> None:
    options = options_of(pytester.parseconfigure("--vdist-backend=cpu"))
    assert options.backend_named("cpu").device_type == "cpu"
    with pytest.raises(LookupError, match="'cuda' is not selected, the command line selects cpu"):
        options.backend_named("cuda")


def test_workers_of_xdist_get_options_from_all_three_places(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VDIST_TIMEOUT", "7")
    pytester.makeini("[pytest]\nvdist_world_sizes = 2")
    pytester.makepyfile(
        """
        from pytest_vdist.options import options_of

        def test_options(pytestconfig):
            options = options_of(pytestconfig)
            assert hasattr(pytestconfig, "workerinput")
            assert options.sources["backend"] == "command line"
            assert (options.timeout, options.world_sizes) == (7.0, (2,))
            assert options.sources["world_sizes"] == "ini file tox.ini"
        """
    )
    result = pytester.runpytest_subprocess("-n1", "--vdist-backend=cpu")
    result.assert_outcomes(passed=1)


def test_under_xdist_a_usage_error_is_printed_once(pytester: pytest.Pytester) -> None:
    assert "unknown backend" in usage_error(pytester, "-n2", "--vdist-backend=nope")


def test_help_shows_every_flag_with_its_default_and_other_names(pytester: pytest.Pytester) -> None:
    text = " ".join(pytester.runpytest("--help").stdout.str().split())
    for row in TABLE:
        assert row.flag in text
        assert f"(default: {row.default}; environment: {row.variable}; ini: {row.ini})" in text
