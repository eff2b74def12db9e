"""What surrounds captures and replays, on the CPU, with graphs that run their function again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from pytest_vdist.ranks import cuda_graphs


class Rerun:
    """A graph on the CPU: a replay calls the function on the same tensors and overwrites the same results."""

    made: list[Rerun] = []  # noqa: RUF012 - cleared by the fixture

    def __init__(self) -> None:
        self.again: Any = lambda: None
        Rerun.made.append(self)

    def replay(self) -> None:
        self.again()


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def entered(*_: Any, **__: Any) -> Iterator[None]:
        yield

    class Stream:
        def wait_stream(self, _: Any) -> None: ...

    Rerun.made.clear()
    monkeypatch.setattr(cuda_graphs, "_DEVICE_TYPE", "cpu")
    monkeypatch.setattr(cuda_graphs, "_Stream", Stream)
    for name, value in {
        "current_stream": Stream,
        "stream": entered,
        "graph": entered,
        "synchronize": lambda: None,
        "CUDAGraph": Rerun,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)


def captured(graphs: cuda_graphs.CudaGraphs) -> None:
    """Let replays of all graphs compute again, into the results of the capture."""
    for graph, kept in zip(Rerun.made, graphs._captured.values(), strict=True):
        graph.again = lambda kept=kept: kept.outputs[0].copy_(graphs._function(*kept.inputs)[0])


@pytest.mark.usefixtures("on_cpu")
def test_replays_take_new_values_and_leave_earlier_results_alone() -> None:
    graphs = cuda_graphs.CudaGraphs(lambda x: (x * 2,))
    one = torch.tensor([1.0])
    graphs(one)
    captured(graphs)
    (first,), (second,) = graphs(one), graphs(torch.tensor([5.0]))
    assert (first.item(), second.item(), one.item(), graphs.count) == (2.0, 10.0, 1.0, 1)


@pytest.mark.usefixtures("on_cpu")
def test_what_the_function_writes_to_an_argument_is_seen() -> None:
    graphs = cuda_graphs.CudaGraphs(lambda x: (x.add_(1),))
    graphs(torch.tensor([0.0]))
    captured(graphs)
    x = torch.tensor([7.0])
    (result,) = graphs(x)
    assert (x.item(), result.item()) == (8.0, 8.0)


@pytest.mark.usefixtures("on_cpu")
def test_other_shapes_and_autograd_modes_are_captured_anew() -> None:
    graphs = cuda_graphs.CudaGraphs(lambda x: (x * 2, None))
    counts = []
    for size in (1, 2, 1):
        assert graphs(torch.ones(size))[1] is None
        counts.append(graphs.count)
    with torch.inference_mode():
        graphs(torch.ones(1))
    assert [*counts, graphs.count] == [1, 2, 2, 3]
