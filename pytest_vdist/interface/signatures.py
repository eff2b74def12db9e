"""What signatures accept, compared with what callers pass."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from inspect import Parameter, Signature
from typing import Any

CONSTRUCTOR = "__init__"
_BY_POSITION = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
_BY_NAME = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
_VARIADIC = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


@dataclass(frozen=True)
class Difference:
    """One parameter that is not as callers need it; `parameter` is "" where the method as a whole is not."""

    method: str
    parameter: str
    expected: str
    found: str

    def __str__(self) -> str:
        parameter = f"parameter {self.parameter!r}: " if self.parameter else ""
        return f"{self.method}: {parameter}expected {self.expected}, found {self.found}"


@dataclass(frozen=True)
class Call:
    """A call as it is written: how many arguments go by position, which by name, and where it stands.

    `is_open` says that it passes more, through `*` or `**`.
    """

    positional: int
    names: tuple[str, ...]
    place: str
    is_open: bool = False


def signature_of(owner: object, name: str) -> Signature | None:
    """Return the signature of a method without `self`, or of the constructor of a class.

    None where it cannot be told: a property, an extension's function, or what `__getattr__` may give. Raises
    AttributeError where there is no such method, or None in its place.
    """
    if name == CONSTRUCTOR:
        return _of_callable(owner)
    try:
        raw = inspect.getattr_static(owner, name)
    except AttributeError:
        cls = owner if isinstance(owner, type) else type(owner)
        if any("__getattr__" in vars(base) for base in cls.__mro__):
            return None
        raise
    if raw is None:
        raise AttributeError(f"{name} is None")
    if not isinstance(owner, type) or isinstance(raw, (staticmethod, classmethod)):
        return _of_callable(getattr(owner, name))
    signature = _of_callable(raw) if inspect.isfunction(raw) else None
    return None if signature is None else without_self(signature)


def without_self(signature: Signature) -> Signature:
    """Leave out the first parameter, unless it is `*args`, which takes more than `self`."""
    parameters = list(signature.parameters.values())
    if parameters and parameters[0].kind in _BY_POSITION:
        return signature.replace(parameters=parameters[1:])
    return signature


def data_by_position(signature: Signature) -> Signature:
    """Return the signature where leading parameters without default go by position, whatever their names."""
    parameters = []
    leading = True
    for parameter in signature.parameters.values():
        leading = leading and parameter.default is Parameter.empty and parameter.kind in _BY_POSITION
        parameters.append(parameter.replace(kind=Parameter.POSITIONAL_ONLY) if leading else parameter)
    return signature.replace(parameters=parameters)


def brief(signature: Signature) -> str:
    """Return the signature as text, without annotations."""
    bare = [each.replace(annotation=Parameter.empty) for each in signature.parameters.values()]
    return str(signature.replace(parameters=bare, return_annotation=Signature.empty))


def narrower(method: str, asked: Signature, found: Signature) -> list[Difference]:
    """Return where `found` accepts less than `asked`: places, names, arguments that may be left out."""
    places = _Places(found)
    differences: list[Difference] = []
    matched: set[str] = set()
    for index, wanted in enumerate(asked.parameters.values()):
        if wanted.kind in _VARIADIC:
            continue
        used, problem = _match(places, wanted, index)
        matched |= {each.name for each in used}
        if problem is None and wanted.default is not Parameter.empty:
            problem = _needs_default(wanted, used)
        if problem is not None:
            differences.append(Difference(method, wanted.name, *problem))
    differences += _demands(method, places, matched | {each.parameter for each in differences})
    return differences


def other_defaults(method: str, asked: Signature, found: Signature) -> list[Difference]:
    """Return parameters of one name whose defaults are two numbers; None stands for one chosen within."""
    both = asked.parameters.keys() & found.parameters.keys()
    differing = [
        name
        for name in asked.parameters
        if name in both
        and _is_number(asked.parameters[name].default)
        and _is_number(found.parameters[name].default)
        and asked.parameters[name].default != found.parameters[name].default
    ]
    return [
        Difference(
            method,
            name,
            f"the default {asked.parameters[name].default}",
            f"the default {found.parameters[name].default}",
        )
        for name in differing
    ]


def refusals(method: str, call: Call, found: Signature, known: Signature | None = None) -> list[Difference]:
    """Return why `found` does not accept the call, or takes an argument for another one.

    `known` is what the caller believes to call: it tells the names of arguments that go by position.
    """
    places = _Places(found)
    differences = [
        Difference(method, name, f"an argument of that name, from {call.place}", places.told)
        for name in call.names
        if places.named(name) is None
    ]
    if places.capacity is not None and call.positional > places.capacity:
        differences.append(
            Difference(method, "", f"{call.positional} arguments by position, from {call.place}", places.told)
        )
    differences += _mixed_up(method, call, places, known)
    if not call.is_open:
        passed = {each.name for each in places.ordered[: call.positional]} | set(call.names)
        differences += _demands(method, places, passed, f", as {call.place} does not pass it")
    return differences


class _Places:
    """The parameters of a signature, by place and by name."""

    def __init__(self, signature: Signature) -> None:
        parameters = list(signature.parameters.values())
        self.told = brief(signature)
        self.ordered = [each for each in parameters if each.kind in _BY_POSITION]
        self.regular = [each for each in parameters if each.kind not in _VARIADIC]
        self._rest = next((each for each in parameters if each.kind is Parameter.VAR_POSITIONAL), None)
        self._others = next((each for each in parameters if each.kind is Parameter.VAR_KEYWORD), None)
        self._by_name = {each.name: each for each in parameters if each.kind in _BY_NAME}

    @property
    def capacity(self) -> int | None:
        """How many arguments go by position, None for any number."""
        return len(self.ordered) if self._rest is None else None

    def at(self, index: int) -> Parameter | None:
        return self.ordered[index] if index < len(self.ordered) else self._rest

    def named(self, name: str) -> Parameter | None:
        return self._by_name.get(name, self._others)

    def place_of(self, name: str) -> int | None:
        """Return the place of a parameter of that name, None for none that goes by position."""
        return next((place for place, each in enumerate(self.ordered) if each.name == name), None)


def _match(places: _Places, wanted: Parameter, index: int) -> tuple[list[Parameter], tuple[str, str] | None]:
    """Return what takes the argument by its place and by its name, and the problem where nothing does."""
    used: list[Parameter] = []
    elsewhere = places.place_of(wanted.name)
    if wanted.kind in _BY_POSITION:
        at = places.at(index)
        if at is None and places.named(wanted.name) is None:
            return used, ("such a parameter", places.told)
        if at is None:
            return used, (f"it as argument {index + 1}, by position", places.told)
        if elsewhere not in {None, index}:
            return used, (f"it as argument {index + 1}, by position", places.told)
        used.append(at)
    if wanted.kind in _BY_NAME:
        named = places.named(wanted.name)
        if named is None:
            return used, ("a parameter of that name", places.told)
        used.append(named)
    return used, None


def _needs_default(wanted: Parameter, used: Sequence[Parameter]) -> tuple[str, str] | None:
    if any(each.default is Parameter.empty and each.kind not in _VARIADIC for each in used):
        return f"a default, such as {wanted.default!r}", "none"
    return None


def _demands(
    method: str, places: _Places, passed: set[str], why: str = ", as no call passes it"
) -> Iterator[Difference]:
    for each in places.regular:
        if each.default is Parameter.empty and each.name not in passed:
            yield Difference(method, each.name, f"a default{why}", places.told)


def _mixed_up(method: str, call: Call, places: _Places, known: Signature | None) -> Iterator[Difference]:
    believed = (
        [] if known is None else [each for each in known.parameters.values() if each.kind in _BY_POSITION]
    )
    for index, wanted in enumerate(believed[: call.positional]):
        elsewhere = places.place_of(wanted.name)
        if elsewhere not in {None, index}:
            yield Difference(
                method, wanted.name, f"it as argument {index + 1}, where {call.place} passes it", places.told
            )


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _of_callable(function: Any) -> Signature | None:
    if not callable(function):
        return None
    try:
        return inspect.signature(function)
    except (ValueError, TypeError):  # written in C, without a text signature
        return None
