"""Smaller programs out of a failing one, for failures that are dear to repeat: each costs a deadline."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from .model import Call, Operand, Program


def reduced(program: Program, fails: Callable[[Program], bool], suspect: int | None = None) -> Program:
    """Return the smallest part of the program found that `fails`, the program itself if none does.

    First the call `suspect`, then each call alone, with what it needs, then every two calls, then all but
    one, again and again.
    """
    numbers = range(len(program.calls))
    few = [*((n,) for n in reversed(numbers)), *itertools.combinations(numbers, 2)]
    tried = set()
    candidates = sorted((part(program, chosen) for chosen in few), key=lambda each: len(each.calls))
    if suspect is not None:
        candidates.insert(0, part(program, (suspect,)))
    for candidate in itertools.chain(candidates, _all_but_one(program)):
        text = candidate.to_json()
        if text in tried or len(candidate.calls) >= len(program.calls):
            continue
        tried.add(text)
        if fails(candidate):
            return reduced(candidate, fails)
    return program


def part(program: Program, numbers: Iterable[int]) -> Program:
    """Return the program of these calls, and of those that they need."""
    kept = sorted(_needed(program, set(numbers)))
    calls = [program.calls[number] for number in kept]
    position = {number: index for index, number in enumerate(kept)}
    inputs = sorted({int(o.value[1:]) for call in calls for o in call.operands if o.value.startswith("x")})
    groups = sorted({0, *(call.group for call in calls)})
    names = {f"x{old}": f"x{new}" for new, old in enumerate(inputs)}
    return replace(
        program,
        groups=tuple(program.groups[number] for number in groups),
        inputs=tuple(program.inputs[number] for number in inputs),
        calls=tuple(_renamed(call, position, names, groups) for call in calls),
    )


def _all_but_one(program: Program) -> Iterator[Program]:
    numbers = set(range(len(program.calls)))
    for number in reversed(range(len(program.calls))):
        needing = {each for each in numbers if number in _needed(program, {each})}
        if needing != numbers:
            yield part(program, numbers - needing)


def _needed(program: Program, numbers: set[int]) -> set[int]:
    """Return the calls with those that they need: whose results they take, whose messages they receive."""
    waiting, found = list(numbers), set(numbers)
    while waiting:
        number = waiting.pop()
        for needed in _needs(program, number) - found:
            found.add(needed)
            waiting.append(needed)
    return found


def _needs(program: Program, number: int) -> set[int]:
    call = program.calls[number]
    needed = {_maker(operand.value) for operand in call.operands if operand.value.startswith("y")}
    if call.operation == "recv_object":
        needed.add(call.message)
    if call.operation == "isend_object":
        needed |= {
            n for n, c in enumerate(program.calls) if c.operation == "recv_object" and c.message == number
        }
    if call.wrong == "destroyed":
        needed |= {
            n for n, c in enumerate(program.calls) if c.operation == "destroy" and c.group == call.group
        }
    return needed


def _maker(value: str) -> int:
    return int(value[1:].partition("_")[0])


def _renamed(call: Call, position: dict[int, int], names: dict[str, str], groups: list[int]) -> Call:
    return replace(
        call,
        group=groups.index(call.group),
        operands=tuple(Operand(_name(each.value, position, names), each.layout) for each in call.operands),
        message=position[call.message] if call.operation == "recv_object" else 0,
    )


def _name(value: str, position: dict[int, int], names: dict[str, str]) -> str:
    if value in names:
        return names[value]
    _, underscore, index = value.partition("_")
    return f"y{position[_maker(value)]}{underscore}{index}"
