"""Whether what the ranks saw of a program is what the oracle says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pytest_vdist.judge.compare import Mismatch, compare_bounded, compare_exact
from pytest_vdist.judge.formats import dtype_name, raw_bytes

from .model import Program
from .oracle import ExactTensor, Expected, Oracle, Refusal, Value, Within
from .records import Report, Seen, SeenError, SeenTensor, SeenValue


@dataclass(frozen=True)
class Divergence:
    """The first thing that is not as it must be. `call` is None for memory that was changed."""

    call: int | None
    rank: int
    problem: str


def divergence_of(
    program: Program, reports: Sequence[Report], accumulate: Mapping[str, str] | None = None
) -> Divergence | None:
    """Compare what all ranks saw, by rank, with the oracle, in the order of the calls; None: all is right.

    `accumulate` maps names of dtypes to declared accumulators, for sums that round.
    """
    expectations = Oracle(program, dict(accumulate or {})).expectations()
    for number, expected in enumerate(expectations):
        seen = [report.seen[number] for report in reports]
        for rank, (got, want) in enumerate(zip(seen, expected, strict=True)):
            problem = _difference(got, want, reports[rank].device_type)
            if problem:
                return Divergence(number, rank, problem)
        for rank, problem in _between_ranks(program, number, seen, expected):
            return Divergence(number, rank, problem)
    for rank, report in enumerate(reports):
        for damage in report.damage:
            return Divergence(None, rank, damage)
    return None


def _between_ranks(
    program: Program, number: int, seen: Sequence[Seen], expected: Sequence[Expected]
) -> list[tuple[int, str]]:
    """Find ranks of one group whose rounded sums are not those of its first rank."""
    call = program.calls[number]
    if call.operation != "all_reduce" or not isinstance(expected[0], Within):
        return []
    return [
        (rank, f"the sum is not bit by bit that of rank {ranks[0]}")
        for ranks in program.groups[call.group].ranks
        for rank in ranks
        if seen[rank] != seen[ranks[0]]
    ]


def _difference(got: Seen, want: Expected, device_type: str) -> str:
    if want is None or got is None:
        return _part_difference(got, want)
    if isinstance(want, Refusal):
        return "" if isinstance(got, SeenError) else f"got {_short(got)}, want an error"
    if isinstance(got, SeenError):
        return f"raised {_short(got)}"
    if isinstance(want, Value):
        value = got.value if isinstance(got, SeenValue) else got
        return _value_difference(value, want.value, device_type, "")
    if isinstance(got, SeenValue):
        return f"got {_short(got)}, want a tensor"
    return _result_difference(got, want, device_type)


def _part_difference(got: Seen, want: Expected) -> str:
    if want is not None:
        return "took no part in it"
    return "" if got is None else f"got {_short(got)}, want no part in it"


def _result_difference(got: SeenTensor, want: ExactTensor | Within, device_type: str) -> str:
    if isinstance(want, Within):
        return _bounded_difference(got, want, device_type)
    return _tensor_difference(got, want.tensor, device_type, zeros_equal=want.zeros_equal)


def _bounded_difference(got: SeenTensor, want: Within, device_type: str) -> str:
    wrong = _form_difference(got, want.dtype, tuple(want.bound.limit.shape), device_type)
    if wrong:
        return wrong
    found = compare_bounded(got.tensor(), want.bound.total, want.bound.limit)
    return str(found) if isinstance(found, Mismatch) else ""


def _tensor_difference(
    got: SeenTensor, want: torch.Tensor, device_type: str, *, zeros_equal: bool = False
) -> str:
    wrong = _form_difference(got, want.dtype, tuple(want.shape), device_type)
    if wrong or got.data == raw_bytes(want).numpy().tobytes():
        return wrong
    mismatch = compare_exact(got.tensor(), want, zeros_equal=zeros_equal)
    return "" if mismatch is None else str(mismatch)


def _form_difference(got: SeenTensor, dtype: torch.dtype, shape: tuple[int, ...], device_type: str) -> str:
    if got.dtype != dtype_name(dtype):
        return f"got dtype {got.dtype}, want {dtype_name(dtype)}"
    if got.shape != shape:
        return f"got shape {got.shape}, want {shape}"
    return "" if got.device_type == device_type else f"got device {got.device_type}, want {device_type}"


def _value_difference(got: Any, want: Any, device_type: str, path: str) -> str:
    place = f"{path}: " if path else ""
    if isinstance(want, torch.Tensor) and isinstance(got, SeenTensor):
        found = _tensor_difference(got, want, device_type)
        return f"{place}{found}" if found else ""
    if type(got) is type(want) and isinstance(want, dict | list):
        return _container_difference(got, want, device_type, path)
    same = type(got) is type(want) and _same(got, want)
    return "" if same else f"{place}got {_short(got)}, want {_short(want)}"


def _container_difference(got: Any, want: Any, device_type: str, path: str) -> str:
    keys, wanted = (list(each) if isinstance(each, dict) else list(range(len(each))) for each in (got, want))
    if keys != wanted:
        place = f"{path}: " if path else ""
        kind = "keys" if isinstance(want, dict) else "entries"
        return f"{place}got the {kind} {keys}, want {wanted}"
    inner = (_value_difference(got[key], want[key], device_type, f"{path}[{key!r}]") for key in wanted)
    return next(filter(None, inner), "")


def _same(got: Any, want: Any) -> bool:
    """Compare literals, with the types in them, and NaN equal to itself."""
    return repr(got) == repr(want)


def _short(value: Any) -> str:
    if isinstance(value, SeenTensor):
        return f"a tensor of {value.dtype} and shape {value.shape}"
    if isinstance(value, torch.Tensor):
        return f"a tensor of {dtype_name(value.dtype)} and shape {tuple(value.shape)}"
    if isinstance(value, SeenError):
        return f"{value.type_name}: {value.message}"
    text = repr(value.value if isinstance(value, SeenValue) else value)
    return text if len(text) <= 80 else text[:77] + "..."
