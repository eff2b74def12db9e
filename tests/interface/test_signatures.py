"""What signatures accept, compared with what callers pass."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from pytest_vdist.interface.calls import Names, calls_in
from pytest_vdist.interface.signatures import (
    Call,
    data_by_position,
    narrower,
    other_defaults,
    refusals,
    signature_of,
)


def asked(x: Any, /, dst: int = 0, dim: int = -1) -> None:
    """Take data by position, and two arguments by position or name."""


def told(function: Any) -> list[str]:
    return [str(each) for each in narrower("C.gather", inspect.signature(asked), inspect.signature(function))]


@pytest.mark.parametrize(
    "function",
    [
        asked,
        lambda tensor, dst=0, dim=-1: None,
        lambda *args, **kwargs: None,
        lambda x, dst=None, dim=-1, more=1: None,
        lambda x, dst=0, dim=-1, *, limit=None, **rest: None,
    ],
    ids=["the same", "another name of data", "anything", "more", "more by name"],
)
def test_what_accepts_all_calls_differs_in_nothing(function: Any) -> None:
    assert told(function) == []


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (
            lambda x, dst=0, axis=-1: None,
            ["C.gather: parameter 'dim': expected a parameter of that name, found (x, dst=0, axis=-1)"],
        ),
        (
            lambda x, dim=-1, dst=0: None,
            [
                "C.gather: parameter 'dst': expected it as argument 2, by position, found (x, dim=-1, dst=0)",
                "C.gather: parameter 'dim': expected it as argument 3, by position, found (x, dim=-1, dst=0)",
            ],
        ),
        (
            lambda x, *, dst=0, dim=-1: None,
            [
                f"C.gather: parameter {name!r}: expected it as argument {place}, by position, "
                "found (x, *, dst=0, dim=-1)"
                for name, place in (("dst", 2), ("dim", 3))
            ],
        ),
        (
            lambda x, dst=0: None,
            ["C.gather: parameter 'dim': expected such a parameter, found (x, dst=0)"],
        ),
        (
            lambda x, dst, dim=-1: None,
            ["C.gather: parameter 'dst': expected a default, such as 0, found none"],
        ),
        (
            lambda x, dst=0, dim=-1, *, limit: None,
            [
                "C.gather: parameter 'limit': expected a default, as no call passes it, "
                "found (x, dst=0, dim=-1, *, limit)"
            ],
        ),
    ],
    ids=["name", "places", "by name only", "missing", "no default", "demand"],
)
def test_what_accepts_less_is_told_by_its_parameter(function: Any, expected: list[str]) -> None:
    assert told(function) == expected


def test_defaults_differ_where_both_are_numbers() -> None:
    def found(x: Any, dst: int | None = None, dim: int = 0) -> None:
        """Leave the default of dst to the function."""

    differences = other_defaults("C.gather", inspect.signature(asked), inspect.signature(found))
    assert [str(each) for each in differences] == [
        "C.gather: parameter 'dim': expected the default -1, found the default 0"
    ]


@pytest.mark.parametrize(
    ("function", "call", "expected"),
    [
        (lambda x, dst=0, dim=-1: None, Call(3, (), "a.py:1"), ""),
        (lambda x, dst=0, **_: None, Call(2, ("dim",), "a.py:1"), ""),
        (lambda *_: None, Call(2, (), "a.py:1"), ""),
        (
            lambda x, dst=0: None,
            Call(2, ("dim",), "a.py:1"),
            "parameter 'dim': expected an argument of that name, from a.py:1, found (x, dst=0)",
        ),
        (
            lambda x, dst=0: None,
            Call(3, (), "a.py:1"),
            "expected 3 arguments by position, from a.py:1, found (x, dst=0)",
        ),
        (
            lambda x, dst: None,
            Call(1, (), "a.py:1"),
            "parameter 'dst': expected a default, as a.py:1 does not pass it, found (x, dst)",
        ),
        (lambda x, dst: None, Call(1, (), "a.py:1", is_open=True), ""),
        (
            lambda x, dim=-1, dst=0: None,
            Call(2, (), "a.py:1"),
            "parameter 'dst': expected it as argument 2, where a.py:1 passes it, found (x, dim=-1, dst=0)",
        ),
    ],
)
def test_a_call_that_is_refused_or_mixed_up_is_told(function: Any, call: Call, expected: str) -> None:
    found = refusals("m", call, inspect.signature(function), inspect.signature(asked))
    assert [str(each) for each in found] == ([f"m: {expected}"] if expected else [])


def test_leading_arguments_without_default_may_have_other_names() -> None:
    base = data_by_position(inspect.signature(lambda size, dtype, src=None: None))
    assert narrower("m", base, inspect.signature(lambda shape, kind, src=None: None)) == []
    assert len(narrower("m", base, inspect.signature(lambda dtype, size, src=None: None))) == 2


class Kinds:
    gone = None
    of_property = property(lambda self: self)

    def __init__(self, device: Any) -> None:
        """Take a device."""

    def method(self, x: Any) -> None:
        """Do nothing."""

    @classmethod
    def of_class(cls, x: Any) -> None:
        """Do nothing."""

    @staticmethod
    def of_nobody(x: Any) -> None:
        """Do nothing."""


class Delegating:
    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


def test_signatures_are_those_that_callers_see() -> None:
    names = ("method", "of_class", "of_nobody")
    assert {str(signature_of(Kinds, name)) for name in names} == {"(x: 'Any') -> 'None'"}
    assert {str(signature_of(Kinds(0), name)) for name in names} == {"(x: 'Any') -> 'None'"}
    assert str(signature_of(Kinds, "__init__")).startswith("(device: 'Any')")
    assert signature_of(Kinds, "of_property") is None
    assert signature_of(Delegating, "anything") is None
    for name in ("gone", "never"):
        with pytest.raises(AttributeError):
            signature_of(Kinds, name)


def test_calls_are_read_from_a_source() -> None:
    source = """
made = cls(group, device=device)
self.communicator.gather(x, dst, dim=0)
communicator.gather(*everything)
self.group.gather(x)
"""
    found = calls_in(source, Names(frozenset({"communicator"}), frozenset({"cls"})), "host.py")
    assert found == {
        "__init__": [Call(1, ("device",), "host.py:2")],
        "gather": [Call(2, ("dim",), "host.py:3"), Call(0, (), "host.py:4", is_open=True)],
    }
