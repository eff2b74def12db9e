"""Operators that do collectives, by name: called as their schema says, and held to what it declares."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from ._compat import operator, operator_arguments
from .buffers import aliases
from .formats import contiguous_copy, dtype_name, same_bits

REDUCTIONS = frozenset({"all_reduce", "reduce_scatter", "reduce_scatterv"})
ALONG_A_DIMENSION = frozenset({"all_gather", "all_gatherv", "reduce_scatter", "reduce_scatterv"})
WITH_SIZES = frozenset({"all_gatherv", "reduce_scatterv"})
KNOWN_ARGUMENTS = ("dim", "group_name", "rank_in_group", "sizes", "src", "world_size")
_ALL_CHECKS = ("test_schema", "test_faketensor", "test_autograd_registration", "test_aot_dispatch_dynamic")
_QUICK_CHECKS = ("test_schema", "test_faketensor")
_CHECKS_WITHOUT_ARITHMETIC = ("test_faketensor",)  # test_schema multiplies, which torch does not do in float8
_TRANSPOSED_DTYPE = torch.float32


class Group(Protocol):
    """What an operator's call needs of a coordinator."""

    unique_name: str
    world_size: int
    rank_in_group: int
    device: torch.device


@dataclass(frozen=True)
class OperatorCase:
    """One call of an operator: the collective that it does, and dtype, dimension and layout of its tensor."""

    operation: str
    name: str
    dtype: torch.dtype
    dim: int = 0
    transposed: bool = False
    src: int = -1  # the last rank

    def __str__(self) -> str:
        layout = ", transposed" if self.transposed else ""
        return f"{self.name}(dim={self.dim}, {dtype_name(self.dtype)}{layout})"


def cases_of(operation: str, name: str, dtypes: Sequence[torch.dtype]) -> list[OperatorCase]:
    """Return the calls that show an operator: every dimension with every dtype, one dtype in two layouts."""
    dims = (0, 1, 2) if operation in ALONG_A_DIMENSION else (0,)
    cases = [OperatorCase(operation, name, dtype, dim) for dtype in dtypes for dim in dims]
    return cases + [
        OperatorCase(operation, name, dtype, dim, transposed=True)
        for dtype in dtypes
        if dtype == _TRANSPOSED_DTYPE
        for dim in (*dims, *(dim - 3 for dim in dims[1:]))
    ]


def call(case: OperatorCase, group: Group, tensor: torch.Tensor, *, group_name: str | None = None) -> Any:
    """Call the operator with this tensor, and return its result. `group_name` is that of `group` if None."""
    arguments = call_arguments(case, group)[1:]
    named = [group_name if group_name and value == group.unique_name else value for value in arguments]
    return operator(case.name)(tensor, *named)


def caller(case: OperatorCase, group: Group) -> Callable[[torch.Tensor], Any]:
    """Return the operator with its other arguments bound, to be called with a tensor many times."""
    overload, arguments = operator(case.name), call_arguments(case, group)[1:]
    return lambda tensor: overload(tensor, *arguments)


def writes_to_its_input(name: str) -> bool:
    """Tell what the schema of an operator says of its tensor."""
    return operator_arguments(operator(name))[0].is_written


def call_arguments(case: OperatorCase, group: Group) -> tuple[Any, ...]:
    """Return what this rank passes, in the order of the schema.

    Raises ValueError for an operator with an argument that no collective of a coordinator has.
    """
    sizes = [rank + 1 for rank in range(group.world_size)]
    known: Mapping[str, Any] = {
        "dim": case.dim,
        "group_name": group.unique_name,
        "rank_in_group": group.rank_in_group,
        "sizes": sizes,
        "src": case.src % group.world_size,
        "world_size": group.world_size,
    }
    values: list[Any] = []
    for number, argument in enumerate(operator_arguments(operator(case.name))):
        if number == 0 and argument.is_tensor:
            values.append(_input(case, group, sizes))
        elif argument.name in known:
            values.append(known[argument.name])
        elif argument.has_default:
            break
        else:
            raise ValueError(
                f"operator {case.name!r} has an argument {argument.name!r}, for which there is no value: "
                f"after the tensor there may be {', '.join(KNOWN_ARGUMENTS)}, and others with a default"
            )
    return tuple(values)


def check(group: Group, cases: Sequence[OperatorCase]) -> list[str]:
    """Say, in a rank, where operators differ from their schemas and from their fake implementations.

    Every rank of the group calls it with the same cases. Operators are called several times for each.
    """
    findings = []
    for case in cases:
        try:
            findings += [f"{case}: {finding}" for finding in _check(group, case)]
        except Exception as error:
            error.add_note(f"raised by {case}")
            raise
    return findings


def _check(group: Group, case: OperatorCase) -> list[str]:
    overload = operator(case.name)
    arguments = call_arguments(case, group)
    given = arguments[0]
    before = contiguous_copy(given)
    fake = overload(given.to("meta"), *arguments[1:])
    real = overload(*arguments)
    findings = []
    if not writes_to_its_input(case.name) and not same_bits(given, before):
        findings.append("the real implementation writes to its input, which the schema does not declare")
    if isinstance(real, torch.Tensor):
        if aliases(real, given):
            findings.append("the result shares memory with the input, which the schema does not declare")
        findings += _differences(fake, real)
    elif (real is None) != (fake is None):
        findings.append(f"the real implementation returns {real!r}, the fake one {fake!r}")
    return findings + _opcheck(overload, arguments, case)


def _differences(fake: Any, real: torch.Tensor) -> list[str]:
    if not isinstance(fake, torch.Tensor):
        return [f"the fake implementation returns {fake!r}, the real one a tensor"]
    told, found = _description(fake), _description(real)
    return [] if told == found else [f"the fake result has {told}, the real one {found}"]


def _description(tensor: torch.Tensor) -> str:
    """Return shape, dtype and those strides that matter: of dimensions with more than one element."""
    pairs = zip(tensor.shape, tensor.stride(), strict=True)
    strides = tuple(stride if size > 1 else 1 for size, stride in pairs) if tensor.numel() else ()
    return f"shape {tuple(tensor.shape)}, strides {strides} and dtype {dtype_name(tensor.dtype)}"


def _opcheck(overload: Any, arguments: tuple[Any, ...], case: OperatorCase) -> list[str]:
    results = torch.library.opcheck(overload, arguments, test_utils=_checks(case), raise_exception=False)
    return [
        f"torch.library.opcheck, {name}: {str(result).splitlines()[0]}"
        for name, result in results.items()
        if result != "SUCCESS"
    ]


def _checks(case: OperatorCase) -> tuple[str, ...]:
    """Return the checks of opcheck for a case: once for each operator those that compile."""
    if case.dtype.is_floating_point and case.dtype.itemsize == 1:
        return _CHECKS_WITHOUT_ARITHMETIC
    return _ALL_CHECKS if case.transposed and not case.dim else _QUICK_CHECKS


def _input(case: OperatorCase, group: Group, sizes: Sequence[int]) -> torch.Tensor:
    """Return small numbers, 0 to 2, in a shape whose parts along the dimension are whole."""
    shape = [2 * group.world_size, group.world_size, 3 * group.world_size]
    if case.operation in WITH_SIZES:
        shape[case.dim] = sizes[group.rank_in_group] if case.operation == "all_gatherv" else sum(sizes)
    numbers = torch.arange(torch.Size(shape).numel()).remainder(3).to(case.dtype).reshape(shape)
    tensor = numbers.to(group.device)
    return tensor.permute(2, 1, 0).contiguous().permute(2, 1, 0) if case.transposed else tensor
