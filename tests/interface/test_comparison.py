"""Coordinators against the protocol, communicators against hosts: what is found, and what is not."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any

import pytest

import pytest_vdist
from pytest_vdist.certificate.suites import SUITES
from pytest_vdist.implementations.protocol import Coordinator
from pytest_vdist.interface import hosts
from pytest_vdist.interface.comparison import communicator_differences, coordinator_differences, methods_of
from pytest_vdist.interface.hosts import Host, InterfaceError, class_named, host_named
from pytest_vdist.interface.signatures import Call
from pytest_vdist.reference_impl import mutants
from pytest_vdist.reference_impl.communicators.cpu import CpuCommunicator
from pytest_vdist.reference_impl.coordinator import GroupCoordinator

PACKAGE = Path(pytest_vdist.__file__).parent
# Objects with methods of such names that are no coordinators: torch's own, oracles, meetings of ranks.
OTHERS = {"dist", "functional", "oracle", "meeting", "stage.meeting", "F", "funcol", "calls", "collectives"}
CALLERS = [*SUITES.glob("*/*.py"), *(PACKAGE / "judge").glob("*.py"), *(PACKAGE / "programs").glob("*.py")]


def calls_on_coordinators() -> list[tuple[str, str, int, tuple[str, ...]]]:
    """Return place, method, number of arguments by position and names of every call that the suites write."""
    methods = methods_of(Coordinator)
    found = []
    for path in CALLERS:
        if path.parent.name == "process_groups":
            continue  # calls torch.distributed itself
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            starred = any(isinstance(each, ast.Starred) for each in node.args)
            names = tuple(keyword.arg for keyword in node.keywords if keyword.arg is not None)
            is_open = starred or len(names) < len(node.keywords)
            if node.func.attr in methods and ast.unparse(node.func.value) not in OTHERS and not is_open:
                found.append((f"{path.name}:{node.lineno}", node.func.attr, len(node.args), names))
    return found


def test_the_suites_call_as_the_protocol_says() -> None:
    methods, refused = methods_of(Coordinator), []
    calls = calls_on_coordinators()
    assert len(calls) > 300
    for place, name, positional, names in calls:
        try:
            methods[name].bind(*range(positional), **dict.fromkeys(names))
        except TypeError as error:
            refused.append(f"{place}: {name}: {error}")
    assert refused == []


def test_the_protocol_asks_for_every_operation() -> None:
    assert {"all_reduce", "recv", "irecv_tensor_dict", "barrier", "destroy"} <= set(methods_of(Coordinator))
    assert "all_gatherv" in methods_of(Coordinator)
    assert "rank" not in methods_of(Coordinator)


def findings() -> dict[str, list[str]]:
    """Return all differences of the reference as it is in this process, by kind."""
    return {
        **coordinator_differences(GroupCoordinator, ()),
        **{
            f"host's {kind}": found
            for kind, found in communicator_differences(host_named("reference"), CpuCommunicator).items()
        },
    }


REQUIREMENTS = {
    "missing": "VD-IFC-001",
    "calls": "VD-IFC-002",
    "defaults": "VD-IFC-003",
    "host's constructor": "VD-HOST-001",
    "host's calls": "VD-HOST-002",
    "host's overrides": "VD-HOST-003",
}


def test_mutants_differ_in_what_they_say_and_in_nothing_else() -> None:
    drifted = {name for name, each in mutants.MUTANTS.items() if each.defect == "signature drift"}
    drifted.add("reduce_scatter_defaults_to_the_first_dimension")
    differing = {}
    try:
        for name in mutants.MUTANTS:
            mutants.apply(name)
            differing[name] = {REQUIREMENTS[kind] for kind, found in findings().items() if found}
    finally:
        mutants.apply(None)
    assert {name for name, found in differing.items() if found} <= drifted
    for name, mutant in mutants.MUTANTS.items():
        wanted = {id_ for id_ in mutant.kills if id_ in REQUIREMENTS.values()}
        assert wanted <= differing[name], name
    assert not any(findings().values())


class Base:
    def __init__(self, cpu_group: Any, device: Any = None, use_all2all: bool = False) -> None:
        """Take the arguments of a host."""

    def all_reduce(self, input_: Any) -> Any:
        """Sum."""

    def gather(self, input_: Any, dst: int = 0, dim: int = -1) -> Any:
        """Gather."""


class Older(Base):
    def __init__(self, cpu_group: Any, device: Any = None) -> None:
        """Take the arguments of an older host."""

    def gather(self, tensor: Any, dst: int = 0) -> Any:  # type: ignore[override]
        """Gather along the last dimension."""


class Duck:
    def all_reduce(self, x: Any) -> Any:
        """Sum."""


CALLS = {
    "__init__": [Call(0, ("cpu_group", "device", "use_all2all"), "host.py:1")],
    "all_reduce": [Call(1, (), "host.py:2")],
    "gather": [Call(2, (), "host.py:3")],
    "suspend": [Call(0, (), "host.py:4")],
}


def test_a_class_is_held_against_what_the_host_calls() -> None:
    assert communicator_differences(Host("host", Base, CALLS), Older) == {
        "constructor": [
            "Older: parameter 'use_all2all': expected an argument of that name, from host.py:1, "
            "found (cpu_group, device=None)"
        ],
        "calls": [],
        "overrides": ["Older.gather: parameter 'dim': expected such a parameter, found (tensor, dst=0)"],
    }


def test_a_class_of_another_kind_needs_what_the_host_calls_and_its_base_has() -> None:
    found = communicator_differences(Host("host", Base, CALLS), Duck)
    assert found["calls"] == [
        "Duck.gather: expected gather(input_, dst=0, dim=-1), called by host.py:3, found no such method"
    ]
    assert [text.partition(", found")[0] for text in found["constructor"]] == [
        f"Duck: parameter {name!r}: expected an argument of that name, from host.py:1"
        for name in ("cpu_group", "device", "use_all2all")
    ]


def test_without_known_calls_the_base_class_says_what_may_be_called() -> None:
    assert communicator_differences(Host("m:Base", Base, {}), Older) == {
        "constructor": [
            "Older: parameter 'use_all2all': expected such a parameter, found (cpu_group, device=None)"
        ],
        "calls": ["Older.gather: parameter 'dim': expected such a parameter, found (tensor, dst=0)"],
        "overrides": [],
    }
    assert not any(communicator_differences(Host("m:Base", Base, {}), Base).values())


def test_what_is_declared_as_unsupported_may_be_missing() -> None:
    class Small:
        def all_reduce(self, x: Any) -> Any:
            """Sum."""

    everything = coordinator_differences(Small, ())["missing"]
    assert "Small.recv: expected recv(size, dtype, /, src=None), found no such method" in everything
    unsupported = [name for name in methods_of(Coordinator) if name not in {"destroy", "all_reduce"}]
    assert coordinator_differences(Small, unsupported)["missing"] == [
        "Small.destroy: expected destroy(), found no such method"
    ]


def test_a_host_that_calls_nothing_any_more_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspect, "getsource", lambda _: "self.comm.all_reduce(x)")
    with pytest.raises(InterfaceError, match="has moved: no call of __init__, all_reduce, all_gather on"):
        host_named("reference")


def test_what_cannot_be_imported_is_told() -> None:
    with pytest.raises(InterfaceError, match="cannot import no_such_package: ModuleNotFoundError"):
        class_named("no_such_package:Class")
    with pytest.raises(InterfaceError, match="inspect has no class 'Nothing'; pass "):
        class_named("inspect:Nothing")
    with pytest.raises(InterfaceError, match=r"no class was named for the host 'a\.b:C'"):
        hosts.picked_by("a.b:C", "cpu")
