"""A failing program, for people: what each rank does, and what was wrong first."""

from __future__ import annotations

import torch

from .inputs import input_of
from .judgement import Divergence
from .model import Program
from .statements import group_name, statements_of

_MOST_ELEMENTS = 6


def describe(program: Program) -> str:
    """Return the program as lines for each rank, ranks that do the same together."""
    lines_by_rank = [tuple(_lines(program, rank)) for rank in range(program.world_size)]
    sections = [_groups(program)] if len(program.groups) > 1 else []
    for lines in dict.fromkeys(lines_by_rank):
        ranks = [rank for rank, own in enumerate(lines_by_rank) if own == lines]
        title = f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {', '.join(map(str, ranks))}"
        sections.append("\n".join([f"{title}:", *(f"    {line}" for line in lines)]))
    return "\n".join(sections)


def headline(program: Program, divergence: Divergence) -> str:
    """Say in one line which rank diverged first, in which call, and how."""
    if divergence.call is None:
        return f"rank {divergence.rank}, after the last call: {divergence.problem}"
    own = [each.code for each in statements_of(program, divergence.rank) if each.call == divergence.call]
    call = own[-1] if own else program.calls[divergence.call].operation
    return f"rank {divergence.rank}, call {divergence.call}, {_short(call)}: {divergence.problem}"


def _groups(program: Program) -> str:
    used = {call.group for call in program.calls} - {0}
    return "\n".join(
        f"{group_name(number)} = the group of this rank out of {[list(ranks) for ranks in groups.ranks]}"
        for number, groups in enumerate(program.groups)
        if number in used
    )


def _lines(program: Program, rank: int) -> list[str]:
    lines = []
    for statement in statements_of(program, rank):
        if statement.call is None:
            name = statement.code.partition(" ")[0]
            lines.append(f"{name} = {_tensor_text(input_of(program, int(name[1:]), rank))}")
        else:
            lines.append(_short(statement.code) + ("  # must raise" if statement.refused else ""))
    return lines


def _tensor_text(tensor: torch.Tensor) -> str:
    name = str(tensor.dtype)
    if tensor.numel() > _MOST_ELEMENTS:
        first = ", ".join(map(repr, tensor.reshape(-1)[:3].tolist()))
        return f"a tensor of {name.removeprefix('torch.')}, shape {tuple(tensor.shape)}: {first}, ..."
    if not tensor.numel():
        return f"torch.empty({tuple(tensor.shape)}, dtype={name})"
    return f"torch.tensor({tensor.tolist()}, dtype={name})"


def _short(code: str) -> str:
    return code if len(code) <= 160 else code[:157] + "..."
