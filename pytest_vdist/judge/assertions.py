"""Assertions of the conformance tests on what the ranks of a group observed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch

from .bounds import SumBound, sum_bound
from .compare import Mismatch, compare_bounded, compare_exact, compare_ranks
from .formats import dtype_name
from .margins import note
from .observation import Observation

Addends = Sequence[torch.Tensor]


def describe_call(operation: str, **parameters: object) -> str:
    """Return `operation(name=value, …)` as messages begin; a dtype is named without "torch."."""
    shown = (
        f"{name}={dtype_name(value) if isinstance(value, torch.dtype) else value}"
        for name, value in parameters.items()
    )
    return f"{operation}({', '.join(shown)})"


def assert_exact(
    observations: Sequence[Observation],
    expected: Sequence[torch.Tensor | None],
    *,
    call: str,
    zeros_equal: bool = False,
    in_place: bool = False,
    may_alias: bool = False,
) -> None:
    """Assert that every rank got exactly what is expected, bit by bit, and that nothing else was touched.

    Both lists are by rank in the group; an expected None means that the rank must get None. `zeros_equal`
    is for sums, whose zeros have no defined sign. With `in_place` the output must be the input; without
    it the input must be unchanged and, unless `may_alias`, share no memory with the output.
    """
    __tracebackhide__ = True
    _check_lengths(observations, expected)
    reports = []
    for observation, want in zip(observations, expected, strict=True):
        findings = _form_findings(observation, want)
        if observation.value is not None and want is not None and not findings:
            findings += _value_findings(compare_exact(observation.value, want, zeros_equal=zeros_equal))
        reports.append(findings + _memory_findings(observation, in_place, may_alias))
    _raise_if_any(call, reports)


def assert_bounded(
    observations: Sequence[Observation],
    inputs: Sequence[torch.Tensor] | Sequence[Sequence[torch.Tensor]],
    *,
    accumulate: str,
    call: str,
    additions: int | None = None,
    in_place: bool = False,
    may_alias: bool = False,
) -> float:
    """Assert that every rank's sum lies within the error bound of the declared accumulator (see `sum_bound`).

    `inputs` are all ranks' inputs where every rank gets their sum, else for every rank the addends of its
    part (see `scattered`). Form, canaries and input are judged as by `assert_exact`. Returns the largest
    error / bound.
    """
    __tracebackhide__ = True
    addends = _addends_by_rank(inputs, len(observations))
    _check_lengths(observations, addends)
    bounds: dict[int, SumBound] = {}
    margins = [0.0]
    reports = []
    for observation, parts in zip(observations, addends, strict=True):
        findings = _form_findings(observation, parts[0])
        if observation.value is not None and not findings:
            if id(parts) not in bounds:
                bounds[id(parts)] = sum_bound(parts, parts[0].dtype, accumulate, additions)
            bound = bounds[id(parts)]
            outcome = compare_bounded(observation.value, bound.total, bound.limit)
            if isinstance(outcome, Mismatch):
                findings += _value_findings(outcome)
            else:
                margins.append(outcome)
        reports.append(findings + _memory_findings(observation, in_place, may_alias))
    _raise_if_any(call, reports)
    note(max(margins))
    return max(margins)


def assert_same_on_all_ranks(observations: Sequence[Observation], *, call: str) -> None:
    """Assert that all ranks hold the same bits. Ranks without a value are an error too."""
    __tracebackhide__ = True
    first = observations[0].value
    reports = [_form_findings(observation, first) for observation in observations]
    if first is None:
        reports[0] = ["got None, want a tensor"]
    elif not any(reports):
        values = cast("list[torch.Tensor]", [observation.value for observation in observations])
        for mismatch in compare_ranks(values):
            reports[mismatch.rank].append(f"differs from rank 0 at {mismatch}")
    _raise_if_any(call, reports)


def _addends_by_rank(inputs: Sequence[torch.Tensor] | Sequence[Addends], ranks: int) -> Sequence[Addends]:
    if isinstance(inputs[0], torch.Tensor):
        return [cast("Addends", inputs)] * ranks
    return cast("Sequence[Addends]", inputs)


def _check_lengths(observations: Sequence[Observation], expected: Sequence[object]) -> None:
    if len(observations) != len(expected):
        raise ValueError(f"{len(observations)} ranks were observed, but {len(expected)} results are expected")


def _form_findings(observation: Observation, want: torch.Tensor | None) -> list[str]:
    """Say what is wrong with the shape, the dtype or the device: the first of them."""
    if want is None or observation.value is None:
        if want is None and observation.value is None:
            return []
        wanted = "None" if want is None else f"a tensor of shape {tuple(want.shape)}"
        got = "None" if observation.value is None else f"a tensor of shape {observation.shape}"
        return [f"got {got}, want {wanted}"]
    if observation.shape != tuple(want.shape):
        return [f"got shape {observation.shape}, want {tuple(want.shape)}"]
    if observation.dtype != want.dtype:
        return [f"got dtype {dtype_name(observation.value.dtype)}, want {dtype_name(want.dtype)}"]
    if observation.input_device_type not in {None, observation.device_type}:
        return [
            f"the output is on {observation.device_type}, but the input on {observation.input_device_type}"
        ]
    return []


def _value_findings(mismatch: Mismatch | None) -> list[str]:
    return [] if mismatch is None else [str(mismatch)]


def _memory_findings(observation: Observation, in_place: bool, may_alias: bool) -> list[str]:
    findings = []
    in_place = in_place or observation.in_place
    if not observation.canaries_intact:
        findings.append("memory outside the input tensor was written")
    if not in_place and not observation.input_intact:
        findings.append("the input was changed")
    has_elements = observation.value is not None and observation.value.numel() > 0
    if in_place and has_elements and not observation.aliases_input:
        findings.append("the output is not the input, though the operation is in place")
    if observation.aliases_input and not in_place and not may_alias:
        findings.append("the output shares memory with the input")
    return findings


def _raise_if_any(call: str, reports: Sequence[list[str]]) -> None:
    """Raise AssertionError with every finding once, and the ranks that share it."""
    __tracebackhide__ = True
    ranks_of: dict[str, list[int]] = {}
    for rank, findings in enumerate(reports):
        for finding in findings:
            ranks_of.setdefault(finding, []).append(rank)
    if ranks_of:
        lines = [f"{_named(ranks)}{_joint(finding)}{finding}" for finding, ranks in ranks_of.items()]
        raise AssertionError(f"{call}: " + "\n  ".join(lines))


def _named(ranks: Sequence[int]) -> str:
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"


def _joint(finding: str) -> str:
    return ", " if finding.startswith("index") else ": "
