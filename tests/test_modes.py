from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_vdist.modes import WorldSizes, refuse_what_is_missing
from pytest_vdist.options import options_of

IMPLEMENTATION = """
from pytest_vdist import Capabilities

class Able:
    name = "able"
    def capabilities(self, device_type): return Capabilities(compile_modes=("eager", "inductor"))
    def init(self, settings): ...
    def coordinator(self, group_ranks, *, name, **options): ...
    def destroy(self): ...
"""


pytestmark = pytest.mark.usefixtures("plain_sessions")


def collected(pytester: pytest.Pytester, *arguments: str) -> list[str]:
    """Return the ids within the file of the tests that a session collects, in order."""
    result = pytester.runpytest("--collect-only", "-q", *arguments)
    assert result.ret == 0, result.stdout.str()
    return [line.partition("::")[2] for line in result.outlines if "::" in line]


def usage_error(pytester: pytest.Pytester, *arguments: str) -> str:
    result = pytester.runpytest(*arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (text,) = [line for line in result.stderr.str().splitlines() if line]
    return text


def test_modes_stand_at_the_front_of_the_id_in_a_fixed_order(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.parametrize("dim", [7])
        def test_all(compile_mode, dim, split_group, world_size, backend):
            assert (backend, world_size, split_group, compile_mode) == ("cpu", 2, False, "eager")
        """
    )
    assert collected(pytester, "--vdist-world-sizes=2") == ["test_all[cpu-2-new_group-eager-7]"]
    pytester.runpytest("--vdist-world-sizes=2").assert_outcomes(passed=1)


def test_modes_stand_before_parameters_that_a_conftest_adds(pytester: pytest.Pytester) -> None:
    pytester.makeconftest("def pytest_generate_tests(metafunc): metafunc.parametrize('seed', [9])")
    pytester.makepyfile("def test_seeded(seed, world_size): ...")
    assert collected(pytester, "--vdist-world-sizes=2") == ["test_seeded[cpu-2-9]"]


def test_a_test_runs_for_each_combination_of_the_modes_that_it_names(
    pytester: pytest.Pytester, twodev: None
) -> None:
    pytester.makepyfile(
        test_matrix="""
        def test_sizes(world_size): ...
        def test_backend(backend): ...
        def test_split(split_group): ...
        def test_compile(compile_mode): ...
        def test_none(): ...
        """,
        able=IMPLEMENTATION,
    )
    ids = collected(
        pytester,
        "--vdist-backend=cpu,twodev",
        "--vdist-world-sizes=1,2",
        "--vdist-impl=able.py:Able",
        "--vdist-split-group=both",
        "--vdist-compile=eager,inductor",
    )
    assert sorted(ids) == sorted(
        [f"test_sizes[{backend}-{size}]" for backend in ("cpu", "twodev") for size in (1, 2)]
        + [f"test_backend[{backend}]" for backend in ("cpu", "twodev")]
        + [
            f"test_split[{backend}-{m}]"
            for backend in ("cpu", "twodev")
            for m in ("new_group", "split_group")
        ]
        + [f"test_compile[{backend}-{m}]" for backend in ("cpu", "twodev") for m in ("eager", "inductor")]
        + ["test_none"]
    )


def test_a_test_whose_fixture_names_a_mode_is_parametrised_as_well(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.fixture(scope="session")
        def world(world_size):
            return ["rank"] * world_size

        def test_world(world):
            assert len(world) in {1, 3}
        """
    )
    assert collected(pytester, "--vdist-world-sizes=1,3") == ["test_world[cpu-1]", "test_world[cpu-3]"]
    pytester.runpytest("--vdist-world-sizes=1,3").assert_outcomes(passed=2)


def test_the_marker_keeps_the_selected_sizes_that_it_allows(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.vdist_world_size(min=2, max=6, multiple_of=2)
        def test_pairs(world_size): ...
        """
    )
    ids = collected(pytester, "--vdist-world-sizes=1,2,3,4,8")
    assert ids == ["test_pairs[cpu-2]", "test_pairs[cpu-4]"]


@pytest.mark.parametrize(
    ("marker", "id_", "need"),
    [
        ("min=4", "cpu-4", "world size >= 4"),
        ("min=3, multiple_of=4", "cpu-4", "world size >= 3 and a multiple of 4"),
        ("min=3, max=5", "cpu-3", "world size from 3 to 5"),
    ],
)
def test_a_test_that_no_selected_size_suits_stays_as_one_skipped_item(
    marker: str, id_: str, need: str, pytester: pytest.Pytester
) -> None:
    pytester.makepyfile(
        f"""
        import pytest

        @pytest.mark.vdist_world_size({marker})
        def test_large(world_size): raise AssertionError
        """
    )
    assert collected(pytester, "--vdist-world-sizes=1,2") == [f"test_large[{id_}]"]
    result = pytester.runpytest("--vdist-world-sizes=1,2", "-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines([f"SKIPPED * not run: needs {need}, selected 1, 2"])


def test_a_costly_test_can_ask_for_the_largest_size_alone(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.vdist_world_size(min=2, max=3, largest_only=True)
        def test_costly(world_size): ...
        """
    )
    assert collected(pytester) == ["test_costly[cpu-3]"]
    assert collected(pytester, "--vdist-world-sizes=1,2,4") == ["test_costly[cpu-2]"]


def test_default_world_sizes_are_bounded_by_the_devices(pytester: pytest.Pytester, twodev: None) -> None:
    pytester.makepyfile("def test_sizes(world_size): ...")
    assert collected(pytester, "--vdist-backend=twodev") == ["test_sizes[twodev-1]", "test_sizes[twodev-2]"]


def test_a_world_size_without_the_devices_for_it_is_a_usage_error(
    pytester: pytest.Pytester, twodev: None
) -> None:
    assert usage_error(pytester, "--vdist-backend=twodev", "--vdist-world-sizes=2,4") == (
        "ERROR: world size must be at most the number of twodev devices, here 2, "
        "got 4 from the command line; pass --vdist-world-sizes=2"
    )


def test_a_device_whose_backend_says_nothing_of_sharing_is_not_shared(
    pytester: pytest.Pytester, twodev: None
) -> None:
    pytester.makepyfile("def test_sizes(world_size): ...")
    assert usage_error(pytester, "--vdist-backend=twodev", "--vdist-ranks-per-device=2") == (
        "ERROR: ranks per device must be 1 on twodev, got 2 from the command line: the backend does not say "
        "how ranks share a device; leave it out, or give the DeviceBackend a sharing_environment"
    )


def test_ranks_that_share_devices_make_larger_worlds(pytester: pytest.Pytester, sharable: None) -> None:
    pytester.makepyfile("def test_sizes(world_size): ...")
    shared = ("--vdist-backend=sharable", "--vdist-ranks-per-device=2")
    assert collected(pytester, *shared) == [f"test_sizes[sharable-{size}]" for size in (1, 2, 3, 4)]
    assert usage_error(pytester, *shared, "--vdist-world-sizes=4,5") == (
        "ERROR: world size must be at most the number of sharable devices, here 2, for 2 ranks each, got 5 "
        "from the command line; pass --vdist-world-sizes=4, or let ranks share devices: "
        "--vdist-ranks-per-device=3"
    )


def test_the_cpu_needs_no_permission_to_be_shared(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_sizes(world_size): ...")
    arguments = ("--vdist-backend=cpu", "--vdist-ranks-per-device=2", "--vdist-world-sizes=2,64")
    assert collected(pytester, *arguments) == ["test_sizes[cpu-2]", "test_sizes[cpu-64]"]


@pytest.mark.parametrize("what", ["ranks", "runs"])
def test_processes_of_torchrun_share_no_devices(what: str, pytester: pytest.Pytester, sharable: None) -> None:
    config = pytester.parseconfigure("--vdist-backend=sharable", f"--vdist-{what}-per-device=2")
    under_torchrun = replace(options_of(config), processes=2)
    with pytest.raises(pytest.UsageError) as caught:
        refuse_what_is_missing(under_torchrun)
    assert str(caught.value) == (
        f"{what} per device must be 1 where torchrun has started pytest, got 2 from the command line: each "
        f"of its processes has its own device; leave --vdist-{what}-per-device out, or pass "
        "--vdist-launcher=local"
    )


def test_a_test_can_ask_for_how_many_ranks_there_are_devices(
    pytester: pytest.Pytester, sharable: None
) -> None:
    pytester.makepyfile("def test_most(backend, most_ranks): print(f'{backend}: {most_ranks}')")
    result = pytester.runpytest("-s", "--vdist-backend=cpu,sharable", "--vdist-ranks-per-device=3")
    result.stdout.fnmatch_lines(["*cpu: 1024", "*sharable: 6"])


@pytest.mark.usefixtures("simdev_as_built")
def test_nodes_are_not_played_where_there_are_too_few_devices_for_their_ranks(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIMDEV_COUNT", "3")
    nodes = ("--pyargs", "pytest_vdist.suites.nodes", "--vdist-backend=simdev", "-rs")
    result = pytester.runpytest_subprocess(*nodes)
    result.assert_outcomes(skipped=2)
    result.stdout.fnmatch_lines(["*not run: needs 4 ranks, and there are devices or processes for 3"])


@pytest.mark.parametrize(
    ("marker", "problem"),
    [
        ("min=0", "min must be a whole number from 1, got 0"),
        ("max='4'", "max must be a whole number from 1, got '4'"),
        ("multiple_of=True", "multiple_of must be a whole number from 1, got True"),
        ("min=3, max=2", "no number of ranks is a world size from 3 to 2"),
        ("4", "takes min, max, multiple_of and largest_only by name: *"),
        ("size=4", "takes min, max, multiple_of and largest_only by name: *'size'*"),
    ],
)
def test_a_bad_marker_is_a_collection_error(marker: str, problem: str, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_bad=f"""
        import pytest

        @pytest.mark.vdist_world_size({marker})
        def test_marked(world_size): ...
        """
    )
    result = pytester.runpytest()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"marker vdist_world_size on test_bad.py::test_marked: {problem}"])


def test_fixtures_of_the_same_names_that_a_project_has_are_left_alone(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_own="""
        import pytest

        @pytest.fixture(params=["sqlite", "postgres"])
        def backend(request):
            return request.param

        @pytest.fixture
        def world_size():
            return "large"

        def test_fixtures(backend, world_size):
            assert world_size == "large"

        @pytest.mark.parametrize("backend, split_group", [("a", "b")])
        @pytest.mark.parametrize(argnames=["compile_mode"], argvalues=["c"])
        def test_parameters(backend, split_group, compile_mode):
            assert (backend, split_group, compile_mode) == ("a", "b", "c")
        """
    )
    ids = collected(pytester)
    assert sorted(ids) == ["test_fixtures[postgres]", "test_fixtures[sqlite]", "test_parameters[c-a-b]"]
    pytester.runpytest().assert_outcomes(passed=3)


def test_world_size_beside_a_backend_of_the_project_is_a_collection_error(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.parametrize("backend", ["sqlite"])
        def test_mixed(backend, world_size): ...
        """
    )
    result = pytester.runpytest()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*but the project has a backend of its own; rename that*"])


def test_a_mode_that_is_asked_for_after_collection_is_refused(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_late(request): request.getfixturevalue('world_size')")
    result = pytester.runpytest()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*LookupError: the mode 'world_size' is chosen at collection*"])


def test_hypothesis_may_drive_a_test_that_names_modes(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTEST_ADDOPTS")
    pytester.makepyfile(
        """
        from hypothesis import given, settings, strategies

        @settings(max_examples=3, database=None)
        @given(number=strategies.integers())
        def test_drawn(backend, world_size, split_group, compile_mode, number):
            assert world_size == 2
        """
    )
    pytester.runpytest("--vdist-world-sizes=2").assert_outcomes(passed=1)


@pytest.mark.parametrize("argument", ["--vdist-split-group=on", "--vdist-split-group=both"])
def test_split_group_needs_the_capability(argument: str, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        unable=IMPLEMENTATION.replace("compile_modes=", "unsupported={'split_group': 'no'}, compile_modes=")
    )
    assert usage_error(pytester, "--vdist-impl=unable.py:Able", argument) == (
        "ERROR: implementation 'unable.py:Able' does not have the capability 'split_group' on cpu, "
        "asked for by the command line: no; pass --vdist-split-group=off, or a --vdist-backend that has it"
    )


def test_a_compile_mode_needs_the_capability(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(able=IMPLEMENTATION)
    assert usage_error(pytester, "--vdist-impl=able.py:Able", "--vdist-compile=eager,aot_eager") == (
        "ERROR: implementation 'able.py:Able' has the capability 'compile_modes' on cpu for eager,inductor "
        "only, got 'aot_eager' from the command line; pass --vdist-compile=eager,inductor"
    )


def test_all_compile_modes_are_those_that_the_implementation_declares(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it="def test_it(compile_mode): ...", able=IMPLEMENTATION)
    assert collected(pytester, "--vdist-impl=able.py:Able", "--vdist-compile=all") == [
        "test_it[cpu-eager]",
        "test_it[cpu-inductor]",
    ]


def test_all_compile_modes_must_be_the_same_on_all_devices(pytester: pytest.Pytester, twodev: None) -> None:
    other_type = pytester.path / "twodev_backend.py"
    other_type.write_text(other_type.read_text().replace('device_type="cpu"', 'device_type="other"'))
    on_cpu = "('eager',) if device_type == 'cpu' else ('eager', 'inductor')"
    pytester.makepyfile(able=IMPLEMENTATION.replace('("eager", "inductor")', on_cpu))
    arguments = ("--vdist-impl=able.py:Able", "--vdist-backend=cpu,twodev", "--vdist-compile=all")
    assert usage_error(pytester, *arguments) == (
        "ERROR: compile modes must be named where devices have different ones, got 'all' from the command "
        "line: implementation 'able.py:Able' declares eager on cpu; eager,inductor on twodev; "
        "pass --vdist-compile=eager, or one --vdist-backend"
    )


def test_an_implementation_that_cannot_be_loaded_is_a_usage_error(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_nothing(): ...")
    text = usage_error(pytester, "--vdist-impl=no_such_module:make")
    assert text.startswith(
        "ERROR: cannot load the implementation, got 'no_such_module:make' from the command"
    )


def test_world_sizes_describe_themselves_and_what_they_allow() -> None:
    pairs = WorldSizes(min=3, max=8, multiple_of=2)
    assert str(pairs) == "world size from 3 to 8 and a multiple of 2"
    assert [size for size in range(1, 11) if pairs.allows(size)] == [4, 6, 8]
    assert pairs.smallest == 4
