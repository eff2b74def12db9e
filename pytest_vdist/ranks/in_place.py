"""Coordinators whose declared operations write into their input, behind calls that keep it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch


class KeepsInputs:
    """A coordinator that passes copies to the operations which it is declared to do in place.

    So a caller who needs the input again has to call it, and tests of anything else may. Copies have the
    strides of the input. What has no such operation is that of `in_place_coordinator`, which the judge calls.
    """

    def __init__(self, coordinator: Any, operations: Sequence[str]) -> None:
        self.in_place_coordinator = coordinator
        self.in_place = tuple(operations)
        for operation in operations:
            setattr(self, operation, _on_a_copy(getattr(coordinator, operation)))

    def __getattr__(self, name: str) -> Any:
        return getattr(vars(self)["in_place_coordinator"], name)


def _on_a_copy(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(input_: Any, *args: Any, **kwargs: Any) -> Any:
        return function(_copy(input_), *args, **kwargs)

    return call


def _copy(given: Any) -> Any:
    """Return a tensor like the given one; what is no tensor, or overlaps itself, is not written to."""
    if not isinstance(given, torch.Tensor) or 0 in given.stride():
        return given
    copy = torch.empty_strided(given.shape, given.stride(), dtype=given.dtype, device=given.device)
    return copy.copy_(given.detach())
