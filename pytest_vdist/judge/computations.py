"""Computations with collectives, to be compiled: how they run in a rank, and how their results are judged.

Their inputs are small whole numbers, so that products and sums are exact in any order and compiled results
have the bits of those that were not compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from .compare import compare_exact
from .simulation import Groups, simulate

Shape = tuple[int, ...]
_LARGEST_INPUT = 2
_MOST_OF_EACH = 3
_NOT_BY_TORCH = frozenset({"eager", "cudagraph"})
_CONTEXTS: Mapping[str, Callable[[], AbstractContextManager[Any]]] = {
    "": nullcontext,
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
}


@dataclass(frozen=True)
class Computation:
    """A function of groups and tensors, and the calls to make of it.

    `body(*groups, *tensors)` returns a tensor or a tuple of them, or of None. There is one group of all
    ranks, or one for each of `layouts`. `rows` holds, for each call, the size of dimension 0 of the first
    tensor; the others have `shapes`. `context` is "", "no_grad" or "inference_mode". `most_graphs` is how
    many graphs the calls may need in all. One that is not `capturable`, because it branches on data or works
    on the CPU, is no CUDA graph.
    """

    name: str
    body: Callable[..., Any]
    columns: int = 8
    rows: tuple[int, ...] = (4, 4, 4)
    shapes: tuple[Shape, ...] = ((8, 8),)
    layouts: tuple[Groups, ...] = ()
    context: str = ""
    fullgraph: bool = True
    most_graphs: int = 1
    capturable: bool = True

    def inputs(self, rank: int, call: int) -> list[torch.Tensor]:
        """Return what the rank passes in one call, on the CPU."""
        shapes = [(self.rows[call], self.columns), *self.shapes]
        return [
            _whole_numbers(shape, 1000 * call + 10 * rank + number) for number, shape in enumerate(shapes)
        ]

    def groups(self, world_size: int) -> Sequence[Groups]:
        return self.layouts or ([list(range(world_size))],)


@dataclass(frozen=True)
class Observed:
    """What one rank saw: by call the results, and the inputs after it; `later` are the results at the end."""

    results: list[list[torch.Tensor | None]]
    inputs: list[list[torch.Tensor]]
    later: list[list[torch.Tensor | None]]
    graphs: int


class Compiled(Protocol):
    """A compiled function that counts its graphs."""

    @property
    def graphs(self) -> int: ...
    def __call__(self, *args: Any) -> Any: ...


class Compile(Protocol):
    """Compiles a function in a rank: `pytest_vdist.compiled`."""

    def __call__(
        self, function: Callable[..., Any], mode: str, *, fullgraph: bool, dynamic: bool | None
    ) -> Compiled: ...


class Run(Protocol):
    """Runs `function(group, *args)` on every rank, and returns the results by rank."""

    def __call__(self, function: Callable[..., Any], /, *args: Any, world_size: int) -> list[Any]: ...


def assert_computations(
    run: Run,
    computations: Sequence[Computation],
    *,
    compile_: Compile,
    mode: str,
    world_size: int,
    make_group: Callable[[Groups], Any] | None = None,
) -> None:
    """Perform all computations on the ranks, compiled for `mode`, in one dispatch, and judge every call.

    `make_group` gives this rank's group for lists of ranks, where computations have `layouts`. Raises
    AssertionError that names each computation, call, rank and result that is wrong.
    """
    __tracebackhide__ = True
    chosen = [each for each in computations if each.capturable or mode != "cudagraph"]
    if not chosen:
        raise ValueError("there is no computation to judge: a test without one would pass whatever happens")
    by_rank = run(perform, chosen, compile_, mode, make_group, world_size=world_size)
    findings: list[str] = []
    for number, computation in enumerate(chosen):
        own = judge(computation, [observed[number] for observed in by_rank], mode=mode)
        more = (
            [f"{computation.name!r}: and {len(own) - _MOST_OF_EACH} more"] if len(own) > _MOST_OF_EACH else []
        )
        findings += [*own[:_MOST_OF_EACH], *more]
    if findings:
        raise AssertionError("\n".join(findings))


def perform(
    group: Any,
    computations: Sequence[Computation],
    compile_: Compile,
    mode: str,
    make_group: Callable[[Groups], Any] | None = None,
) -> list[Observed]:
    """Make all calls of the computations, in a rank. An exception gets the computation as a note."""
    seen = []
    for computation in computations:
        try:
            groups = [make_group(layout) for layout in computation.layouts] if make_group else []
            seen.append(_perform(groups or [group], computation, compile_, mode))
        except Exception as error:
            error.add_note(f"raised by {computation.name!r} in mode {mode}")
            raise
    return seen


def judge(computation: Computation, observed: Sequence[Observed], *, mode: str) -> list[str]:
    """Say what is wrong about the calls of one computation, by rank."""
    findings: list[str] = []
    for call in range(len(computation.rows)):
        inputs = [computation.inputs(rank, call) for rank in range(len(observed))]
        expected = simulate(
            lambda *args: _as_list(computation.body(*args)), inputs, computation.groups(len(observed))
        )
        for rank, seen in enumerate(observed):
            where = f"{computation.name!r}, call {call + 1} of {len(computation.rows)}, rank {rank}"
            findings += _wrong_results(where, seen, call, expected[rank])
            findings += _wrong_inputs(where, seen.inputs[call], inputs[rank], computation.inputs(rank, call))
    return findings + _wrong_graphs(computation, observed, mode)


def _perform(groups: Sequence[Any], computation: Computation, compile_: Compile, mode: str) -> Observed:
    if mode not in _NOT_BY_TORCH:
        torch.compiler.reset()  # the function below counts as one, and torch limits its recompilations
    compiled = compile_(
        lambda *tensors: computation.body(*groups, *tensors),
        mode,
        fullgraph=computation.fullgraph,
        dynamic=None,
    )
    results, inputs, copies = [], [], []
    for call in range(len(computation.rows)):
        args = [tensor.to(groups[0].device) for tensor in computation.inputs(groups[0].rank, call)]
        with _CONTEXTS[computation.context]():
            results.append(_as_list(compiled(*args)))
        inputs.append([tensor.cpu().clone() for tensor in args])
        copies.append([_copied(result) for result in results[-1]])
    later = [[_copied(result) for result in each] for each in results]
    return Observed(copies, inputs, later, compiled.graphs)


def _wrong_results(
    where: str, seen: Observed, call: int, expected: Sequence[torch.Tensor | None]
) -> list[str]:
    findings = []
    for number, (got, want) in enumerate(zip(seen.results[call], expected, strict=True)):
        what = f"{where}: result {number}"
        if got is None or want is None:
            findings += [] if got is want else [f"{what} is {_shown(got)}, expected {_shown(want)}"]
            continue
        wrong = _difference(got, want)
        if wrong:
            findings.append(f"{what} is {_character(got, seen, call, number)}wrong: {wrong}")
        later = seen.later[call][number]
        if later is not None and not torch.equal(later, got):
            findings.append(f"{what} was changed by later calls: {_difference(later, got)}")
    return findings


def _wrong_inputs(
    where: str,
    after: Sequence[torch.Tensor],
    expected: Sequence[torch.Tensor],
    before: Sequence[torch.Tensor],
) -> list[str]:
    """Compare the inputs after a call with those of the simulated rank, which it may have written to."""
    findings = []
    for number, (got, want, given) in enumerate(zip(after, expected, before, strict=True)):
        wrong = _difference(got, want)
        if wrong:
            promise = "keeps its values" if torch.equal(want, given) else "is written to"
            findings.append(f"{where}: input {number}, which {promise}, is wrong after the call: {wrong}")
    return findings


def _wrong_graphs(computation: Computation, observed: Sequence[Observed], mode: str) -> list[str]:
    if mode in _NOT_BY_TORCH:
        return []
    return [
        f"{computation.name!r}, rank {rank}: {seen.graphs} graphs for {len(computation.rows)} calls, "
        f"expected 1 to {computation.most_graphs}: more are graph breaks or recompilations, none is no "
        "compilation"
        for rank, seen in enumerate(observed)
        if not 1 <= seen.graphs <= computation.most_graphs
    ]


def _difference(got: torch.Tensor, want: torch.Tensor) -> str:
    if (got.shape, got.dtype) != (want.shape, want.dtype):
        return f"{_shown(got)} instead of {_shown(want)}"
    mismatch = compare_exact(got, want, zeros_equal=True)
    return "" if mismatch is None else str(mismatch)


def _character(got: torch.Tensor, seen: Observed, call: int, number: int) -> str:
    """Name what wrong values often are: zeros, or those of an earlier call or of another result."""
    if got.numel() and not got.any():
        return "all zeros and "
    for earlier in range(call):
        if _equal(seen.results[earlier][number], got):
            return f"stale (that of call {earlier + 1}) and "
    for other, result in enumerate(seen.results[call]):
        if other != number and _equal(result, got):
            return f"equal to result {other} and "
    return ""


def _equal(one: torch.Tensor | None, other: torch.Tensor) -> bool:
    return one is not None and one.shape == other.shape and torch.equal(one, other)


def _shown(tensor: torch.Tensor | None) -> str:
    return "None" if tensor is None else f"{tensor.dtype} of shape {tuple(tensor.shape)}"


def _copied(tensor: torch.Tensor | None) -> torch.Tensor | None:
    return None if tensor is None else tensor.detach().cpu().clone()


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, tuple | list) else [value]


def _whole_numbers(shape: Shape, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-_LARGEST_INPUT, _LARGEST_INPUT + 1, shape, generator=generator).float()
