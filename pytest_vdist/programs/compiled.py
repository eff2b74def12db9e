"""A program of collectives as one function, compiled, as one rank carries it out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from .inputs import input_of
from .interpreter import Coordinator, MakeCoordinator, call_arguments
from .model import AS_IT_IS, COLLECTIVES, Program
from .records import Report, seen_tensor, seen_value

Compile = Callable[[Callable[..., Any], str], Callable[..., Any]]


def is_compilable(program: Program) -> bool:
    """Tell whether a program can be one compiled function: right collectives alone, tensors as they are."""
    return all(
        call.operation in COLLECTIVES and not call.wrong and call.operands[0].layout == AS_IT_IS
        for call in program.calls
    ) and not any(groups.own for groups in program.groups)


def execute_compiled(
    world: Coordinator, kept: MakeCoordinator, compile_: Compile, program: Program, mode: str
) -> Report:
    """Carry out a program on the calling rank as one function that `compile_` compiles for `mode`.

    The program must be compilable. `kept` gives coordinators of further groups, which stay.
    """
    groups = [world, *(kept([list(ranks) for ranks in each.ranks]) for each in program.groups[1:])]
    inputs = {
        f"x{number}": input_of(program, number, world.rank).to(world.device)
        for number in range(len(program.inputs))
    }
    calls = [
        (
            call.operation,
            groups[call.group],
            call.operands[0].value,
            call_arguments(program, call, groups[call.group]),
        )
        for call in program.calls
    ]

    def function(*tensors: torch.Tensor) -> list[Any]:
        values = dict(zip(inputs, tensors, strict=True))
        results = []
        for number, (operation, group, operand, arguments) in enumerate(calls):
            # Operations in place get a tensor of their own, so that values of a program never change.
            tensor = values[operand].clone() if operation == "broadcast" else values[operand]
            values[f"y{number}"] = getattr(group, operation)(tensor, **arguments)
            results.append(values[f"y{number}"])
        return results

    before = {name: seen_tensor(tensor) for name, tensor in inputs.items()}
    results = compile_(function, mode)(*inputs.values())
    seen = tuple(seen_value(result) for result in results)
    damage = tuple(
        f"input {name} was changed" for name, tensor in inputs.items() if seen_tensor(tensor) != before[name]
    )
    return Report(seen, damage, world.device.type)
