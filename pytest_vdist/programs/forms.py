"""What is known of every value of a program without running it: dtype, shape on each rank, size of numbers.

It decides which calls are valid: sums stay exact in their dtype, ranks hold what they pass, shapes agree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from pytest_vdist.judge.formats import IntegerFormat, format_of

from .inputs import SMALL
from .model import ROOTED, SUMS, Call, Input, Operand, Partition, Program, Shape

Shapes = tuple[Shape | None, ...]


class InvalidProgramError(ValueError):
    """Raised for a program whose calls have no one right result."""


@dataclass(frozen=True)
class Form:
    """One value. `shapes` are by global rank, None where a rank does not hold it.

    `magnitude` bounds the integers in it, in units of the last place of the widest sum; None for bits that
    are no numbers to add. `addends` says that a sum over ranks is exact although `magnitude` is not small:
    all ranks together stay within the format. The sum of `rounding` values is not `exact`: it is judged by a
    bound, and no other call takes it.
    """

    dtype: str
    shapes: Shapes
    magnitude: int | None = None
    addends: bool = False
    rounding: bool = False
    exact: bool = True


def forms_of(program: Program) -> dict[str, Form]:
    """Return the form of every value by name. Raises InvalidProgramError that names the wrong call."""
    forms = {f"x{n}": input_form(each, program.world_size) for n, each in enumerate(program.inputs)}
    destroyed = set()
    for number, call in enumerate(program.calls):
        if (call.wrong == "destroyed") != (call.group in destroyed):
            raise InvalidProgramError(
                f"call {number}, {call.operation}: group {call.group} is destroyed or not"
            )
        if call.operation == "destroy":
            destroyed.add(call.group)
        try:
            forms.update(results_of(call, number, program.groups[call.group].ranks, forms))
        except (InvalidProgramError, LookupError) as error:
            raise InvalidProgramError(f"call {number}, {call.operation}: {error}") from None
    return forms


def input_form(made: Input, world_size: int) -> Form:
    shapes = tuple(made.shape_at(rank, world_size) for rank in range(world_size))
    if made.values == "bits":
        return Form(made.dtype, shapes)
    if made.values == "small":
        return Form(made.dtype, shapes, SMALL)
    return Form(made.dtype, shapes, capacity(made.dtype), addends=True, rounding=made.values == "rounding")


def capacity(dtype: str) -> int:
    """Return the largest n such that all integers up to n are numbers of the dtype."""
    found = format_of(getattr(torch, dtype))
    return found.max if isinstance(found, IntegerFormat) else 1 << found.precision


def results_of(
    call: Call, number: int, groups: Partition, forms: dict[str, Form]
) -> Iterator[tuple[str, Form]]:
    """Yield name and form of each value that a call makes. Raises InvalidProgramError for an invalid call."""
    if call.wrong:
        return
    operands = [forms[each.value] for each in call.operands]
    if not all(each.exact for each in operands):
        raise InvalidProgramError("it takes a sum that is not exact")
    if call.operation in {"send", "recv"}:
        yield f"y{number}", _moved(operands[0], call, groups)
    elif call.keys or call.operation.endswith("tensor_dict"):
        for index, operand in enumerate(operands):
            yield f"y{number}_{index}", _moved(operand, call, groups)
    elif operands:
        yield f"y{number}", collective_form(call, operands[0], groups)


def collective_form(call: Call, operand: Form, groups: Partition) -> Form:
    """Return the form of what a collective gives. Raises InvalidProgramError where it has no right result."""
    shapes: list[Shape | None] = list(operand.shapes)
    for index, ranks in enumerate(groups):
        for rank, shape in zip(ranks, _shapes_in(call, operand, ranks, index), strict=True):
            shapes[rank] = shape
    form = replace(operand, shapes=tuple(shapes), addends=False)
    return _summed(form, operand, groups) if call.operation in SUMS else form


def _summed(form: Form, operand: Form, groups: Partition) -> Form:
    largest = max(len(ranks) for ranks in groups)
    if operand.magnitude is None or operand.dtype == "bool":
        raise InvalidProgramError(f"bits of {operand.dtype} are not summed")
    if operand.addends or largest == 1:
        return replace(form, magnitude=operand.magnitude, exact=not operand.rounding)
    if operand.rounding or operand.magnitude * largest > capacity(operand.dtype):
        raise InvalidProgramError(f"the sum of {largest} such tensors is not exact in {operand.dtype}")
    return replace(form, magnitude=operand.magnitude * largest)


def _moved(operand: Form, call: Call, groups: Partition) -> Form:
    """Return the form of what arrives of an operand that only its source needs to hold."""
    shapes: list[Shape | None] = [None] * len(operand.shapes)
    for ranks in groups:
        for source, destination in routes(call, ranks):
            if operand.shapes[source] is None:
                raise InvalidProgramError(f"rank {source} does not hold what it sends")
            shapes[destination] = operand.shapes[source]
    return replace(operand, shapes=tuple(shapes), addends=False)


def routes(call: Call, ranks: Sequence[int]) -> list[tuple[int, int]]:
    """Return the global ranks, source and destination, between which a call moves data in one group."""
    size = len(ranks)
    if call.operation in ROOTED:
        return [(ranks[call.root % size], rank) for rank in ranks]
    if call.operation == "shift_tensor_dict":
        distance = call.distance(size)
        return [(ranks[n], ranks[(n + distance) % size]) for n in range(size)] if distance else []
    pair = call.pair(size)
    return [] if pair is None else [(ranks[pair[0]], ranks[pair[1]])]


def _shapes_in(call: Call, operand: Form, ranks: Sequence[int], index: int) -> list[Shape | None]:
    size = len(ranks)
    own: list[Shape] = []
    for rank in ranks:
        shape = operand.shapes[rank]
        if shape is None:
            raise InvalidProgramError(f"rank {rank} does not hold its input")
        own.append(shape)
    if call.operation == "all_gatherv":
        return _gathered(call, own, index)
    if len(set(own)) != 1:
        raise InvalidProgramError(f"ranks {tuple(ranks)} hold different shapes, {own}")
    shape = own[0]
    if call.operation in {"all_reduce", "broadcast"}:
        return [shape] * size
    if not -len(shape) <= call.dim < len(shape):
        raise InvalidProgramError(f"shape {shape} has no dimension {call.dim}")
    if call.operation == "all_gather":
        return [_resized(shape, call.dim, shape[call.dim] * size)] * size
    if call.operation == "gather":
        joined = _resized(shape, call.dim, shape[call.dim] * size)
        return [joined if n == call.root % size else None for n in range(size)]
    return [_resized(shape, call.dim, part) for part in _parts(call, shape[call.dim], size, index)]


def _parts(call: Call, total: int, size: int, index: int) -> tuple[int, ...]:
    if call.sizes is None or call.operation == "reduce_scatter":
        if total % size:
            raise InvalidProgramError(f"a dimension of {total} has no {size} equal parts")
        return (total // size,) * size
    sizes = call.sizes[index]
    if sum(sizes) != total or len(sizes) != size:
        raise InvalidProgramError(f"sizes {sizes} do not make up a dimension of {total}")
    return sizes


def _gathered(call: Call, own: list[Shape], index: int) -> list[Shape | None]:
    dims = len(own[0])
    if any(len(shape) != dims for shape in own) or not -dims <= call.dim < dims:
        raise InvalidProgramError(f"shapes {own} cannot be joined along dimension {call.dim}")
    if len({_resized(shape, call.dim, 0) for shape in own}) != 1:
        raise InvalidProgramError(f"shapes {own} cannot be joined along dimension {call.dim}")
    sizes = tuple(shape[call.dim] for shape in own)
    if call.sizes is None and len(set(sizes)) != 1:
        raise InvalidProgramError(f"shapes {own} differ, and no sizes are given")
    if call.sizes is not None and call.sizes[index] != sizes:
        raise InvalidProgramError(f"sizes {call.sizes[index]} are not those of {own}")
    return [_resized(own[0], call.dim, sum(sizes))] * len(own)


def _resized(shape: Shape, dim: int, size: int) -> Shape:
    changed = list(shape)
    changed[dim] = size
    return tuple(changed)


def operands_by_key(call: Call) -> list[tuple[str, Operand]]:
    """Return the keys of a call's dictionary that hold tensors, with them."""
    return list(zip(call.keys, call.operands, strict=True))
