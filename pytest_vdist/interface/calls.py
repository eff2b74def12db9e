"""The calls that a program makes on objects of one kind, read from its source."""

from __future__ import annotations

import ast
from collections.abc import Collection
from dataclasses import dataclass

from pytest_vdist.interface.signatures import CONSTRUCTOR, Call


@dataclass(frozen=True)
class Names:
    """How a program calls what it holds: names and attributes of objects, and names of their class."""

    objects: frozenset[str]
    classes: frozenset[str]


def calls_in(source: str, names: Names, place: str) -> dict[str, list[Call]]:
    """Return every call of a method on such objects by the method's name; those of the class by __init__.

    `place` names the source in what tells of a call, before the number of the line.
    """
    found: dict[str, list[Call]] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            method = _method(node.func, names)
            if method:
                found.setdefault(method, []).append(_call(node, place))
    return found


def _method(function: ast.expr, names: Names) -> str:
    if _is_one_of(function, names.classes):
        return CONSTRUCTOR
    if isinstance(function, ast.Attribute) and _is_one_of(function.value, names.objects):
        return function.attr
    return ""


def _is_one_of(node: ast.expr, names: Collection[str]) -> bool:
    return (isinstance(node, ast.Name) and node.id in names) or (
        isinstance(node, ast.Attribute) and node.attr in names
    )


def _call(node: ast.Call, place: str) -> Call:
    plain = [argument for argument in node.args if not isinstance(argument, ast.Starred)]
    named = tuple(keyword.arg for keyword in node.keywords if keyword.arg is not None)
    is_open = len(plain) < len(node.args) or len(named) < len(node.keywords)
    return Call(len(plain), named, f"{place}:{node.lineno}", is_open)
