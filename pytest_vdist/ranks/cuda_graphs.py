"""Functions captured in CUDA graphs and replayed, for any shapes they are called with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from pytest_vdist.ranks import _compat

_DEVICE_TYPE = "cuda"
_WARM_UPS = 2
_Stream: Any = torch.cuda.Stream  # torch has no types for it


class CudaGraphs:
    """Captures a function once for each set of shapes, dtypes and autograd modes, and replays it after that.

    Arguments are copied into the graph's own tensors before a replay and back after it, so that what the
    function writes into its arguments is seen; results are copies, which later replays leave alone.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._captured: dict[Any, _Captured] = {}

    @property
    def count(self) -> int:
        return len(self._captured)

    def __call__(self, *args: Any) -> Any:
        for number, tensor in enumerate(args):
            if not isinstance(tensor, torch.Tensor) or tensor.device.type != _DEVICE_TYPE:
                kind = tensor.device if isinstance(tensor, torch.Tensor) else type(tensor).__name__
                raise TypeError(
                    f"a CUDA graph takes tensors on a CUDA device, and argument {number} is {kind}; "
                    "bind other values in the function, or use another compile mode"
                )
        modes = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        key = (*((tuple(t.shape), t.stride(), t.dtype, t.device) for t in args), *modes)
        if key not in self._captured:
            self._captured[key] = _capture(self._function, args)
        return self._captured[key].replay(args)


@dataclass(frozen=True)
class _Captured:
    """A graph, the tensors that it reads its arguments from, and the results that it writes."""

    graph: Any
    inputs: tuple[torch.Tensor, ...]
    outputs: Any

    def replay(self, args: tuple[torch.Tensor, ...]) -> Any:
        with torch.no_grad():
            for mine, given in zip(self.inputs, args, strict=True):
                mine.copy_(given)
            self.graph.replay()
            for mine, given in zip(self.inputs, args, strict=True):
                given.copy_(mine)
            return _compat.map_tensors(torch.clone, self.outputs)


def _capture(function: Callable[..., Any], args: tuple[torch.Tensor, ...]) -> _Captured:
    """Capture one call, after others that let libraries such as NCCL set up what a capture must not."""
    inputs = tuple(tensor.detach().clone() for tensor in args)
    side, current = _Stream(), torch.cuda.current_stream()
    side.wait_stream(current)
    with torch.cuda.stream(side):
        for _ in range(_WARM_UPS):
            function(*inputs)
    current.wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    # Threads such as NCCL's watchdog may ask for the state of earlier work while this one captures.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        outputs = function(*inputs)
    return _Captured(graph, inputs, outputs)
