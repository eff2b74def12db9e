"""The mutants as a collection: each applies, changes something, and can be taken out again."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import pytest

from pytest_vdist.certificate.requirements import registry
from pytest_vdist.implementations.spec import ImplementationError, ImplementationSpec
from pytest_vdist.mutation import implementations
from pytest_vdist.reference_impl import mutants
from pytest_vdist.reference_impl.coordinator import GroupCoordinator
from pytest_vdist.reference_impl.mutants import MUTANTS, Mutant, MutantDoesNotApplyError
from pytest_vdist.reference_impl.mutants.registry import Patch

DEFECTS = {
    "aliasing",
    "all-gather group",
    "arguments",
    "barriers",
    "compilation",
    "contiguity",
    "dimensions",
    "dtypes",
    "empty tensors",
    "fake implementations",
    "groups",
    "handles",
    "hangs",
    "leaks",
    "life cycle",
    "objects",
    "one rank",
    "point-to-point",
    "process groups",
    "ragged parts",
    "rank mapping",
    "shared memory",
    "signature drift",
    "subgroups",
    "tensor dicts",
    "timeouts",
    "use after destroy",
    "values",
}


@pytest.fixture(autouse=True)
def reference_as_it_is() -> Iterator[None]:
    yield
    mutants.apply(None)


def test_there_are_more_than_a_hundred_of_every_class_of_defect() -> None:
    assert len(MUTANTS) >= 100
    assert DEFECTS - {mutant.defect for mutant in MUTANTS.values()} == set()


def test_every_mutant_is_described_in_full() -> None:
    for mutant in MUTANTS.values():
        assert mutant.summary.endswith("."), mutant.name
        assert "\n" not in mutant.summary, mutant.name
        assert mutant.kills, mutant.name
        registry().require(mutant.kills)
        assert mutant.issue is None or mutant.issue.startswith("https://github.com/"), mutant.name


def test_every_mutant_applies_changes_something_and_goes_again() -> None:
    for name in MUTANTS:
        assert_applies_and_goes(name)


def assert_applies_and_goes(name: str) -> None:
    patch = Patch()
    MUTANTS[name].change(patch)
    replaced = list(patch.replaced)
    assert replaced, f"{name} replaces nothing"
    for owner, attribute, original in replaced:
        assert vars(owner)[attribute] is not original, f"{name}: {attribute} is what it was"
    patch.undo()
    first: dict[tuple[int, str], Any] = {}
    for owner, attribute, original in replaced:
        first.setdefault((id(owner), attribute), (owner, original))
    for (_, attribute), (owner, original) in first.items():
        assert vars(owner)[attribute] is original, f"{name}: {attribute} was not put back"


def test_another_mutant_takes_the_place_of_the_one_before() -> None:
    right = GroupCoordinator.barrier, GroupCoordinator.all_reduce
    mutants.apply("barrier_does_nothing")
    assert GroupCoordinator.barrier is not right[0]
    mutants.apply("sum_is_zero")
    assert GroupCoordinator.barrier is right[0]
    assert GroupCoordinator.all_reduce is not right[1]
    mutants.apply(None)
    assert (GroupCoordinator.barrier, GroupCoordinator.all_reduce) == right


def test_a_mutant_of_something_that_moved_is_an_error() -> None:
    with pytest.raises(
        MutantDoesNotApplyError, match="GroupCoordinator does not define 'all_to_all': it was"
    ):
        Patch().around(GroupCoordinator, "all_to_all")(lambda *_: None)


def test_a_mutant_that_changes_nothing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    idle = Mutant("idle", "Nothing is wrong.", "values", ("VD-AR-001",), lambda _: None)
    monkeypatch.setitem(MUTANTS, "idle", idle)
    with pytest.raises(MutantDoesNotApplyError, match="mutant 'idle' replaces nothing"):
        mutants.apply("idle")


def test_a_mutant_that_fails_half_way_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def change(patch: Patch) -> None:
        patch.value(GroupCoordinator, "barrier", None)
        patch.value(GroupCoordinator, "all_to_all", None)

    right = GroupCoordinator.barrier
    half = Mutant("half", "Half of it is gone.", "values", ("VD-AR-001",), change)
    monkeypatch.setitem(MUTANTS, "half", half)
    with pytest.raises(MutantDoesNotApplyError, match="all_to_all"):
        mutants.apply("half")
    assert GroupCoordinator.barrier is right


def test_an_unknown_mutant_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no mutant 'no_such'; `vdist mutants --list` names them"):
        mutants.apply("no_such")


def test_a_mutant_enters_as_any_implementation_does() -> None:
    target = f"{implementations.__name__}:barrier_does_nothing"
    spec = pickle.loads(pickle.dumps(ImplementationSpec.resolve(target, "the command line")))
    right = GroupCoordinator.barrier
    implementation = spec.load()
    assert implementation.name == "reference with barrier_does_nothing"
    assert GroupCoordinator.barrier is right, "a mutant begins with its initialisation, in a rank"


def test_an_unknown_mutant_is_no_implementation() -> None:
    spec = ImplementationSpec.resolve(f"{implementations.__name__}:no_such", "the command line")
    with pytest.raises(ImplementationError, match="has no 'no_such'"):
        spec.load()
