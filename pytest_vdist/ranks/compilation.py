"""Compiling a function as the session's mode says, in a rank, and counting what the compiler made of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar

import torch

from pytest_vdist.ranks import _compat
from pytest_vdist.ranks.cuda_graphs import CudaGraphs

P = ParamSpec("P")
R = TypeVar("R")


class CompiledFunction(Generic[P, R]):
    """A function that runs compiled. `graphs` counts what the compiler has made of it so far."""

    def __init__(self, call: Callable[P, R], count: Callable[[], int]) -> None:
        self._call = call
        self._count = count

    @property
    def graphs(self) -> int:
        """The number of graphs: 0 in eager mode, 1 where nothing broke the graph and nothing was recompiled.

        In mode "cudagraph" it counts captures: one for each set of shapes and dtypes.
        """
        return self._count()

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._call(*args, **kwargs)


def compiled(
    function: Callable[P, R], mode: str, *, fullgraph: bool = True, dynamic: bool | None = None
) -> CompiledFunction[P, R]:
    """Return `function` as `mode` runs it: the fixture `compile_mode`, or a backend of `torch.compile`.

    To be called in a rank, by every rank alike where the function holds collectives. "eager" is the function
    itself. "cudagraph" captures it at the first call with new shapes, and replays: its arguments are tensors
    on a CUDA device, and what it returns is copied. For any other mode, `fullgraph` refuses whatever breaks
    the graph, and `dynamic` is as for `torch.compile`. Operators that return an alias of an input make torch
    warn on every machine, where torch alone raises an error if the environment has CI.
    """
    if mode == "eager":
        return CompiledFunction(function, lambda: 0)
    if mode == "cudagraph":
        graphs: Any = CudaGraphs(function)
        return CompiledFunction(graphs, lambda: graphs.count)
    backend = _CountingBackend(mode)
    by_torch = torch.compile(function, backend=backend, fullgraph=fullgraph, dynamic=dynamic)
    _session.used = True

    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        with _compat.aliasing_operators_warn():
            return by_torch(*args, **kwargs)

    return CompiledFunction(call, lambda: backend.count)


def forget_compiled_functions() -> None:
    """Drop what runs have compiled here: torch counts recompilations of a function over its whole life."""
    if _session.used:
        torch.compiler.reset()
        _session.used = False


class _CountingBackend:
    """A backend of `torch.compile` by name, which counts the graphs that it is given."""

    def __init__(self, name: str) -> None:
        self._compile = _compat.compiler_backend(name)
        self.count = 0

    def __call__(self, graph: Any, example_inputs: Any) -> Any:
        self.count += 1
        return self._compile(graph, example_inputs)


class _Session:
    used = False


_session = _Session()
