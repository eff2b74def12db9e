"""What one rank reports about one operation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .buffers import GuardedTensor, aliases
from .formats import contiguous_copy


@dataclass(frozen=True, eq=False)
class Observation:
    """The output of one rank as a contiguous CPU tensor, with what only that rank can see.

    An operation that gave None has None in `value`, `dtype`, `shape` and `device_type`.
    `input_device_type` is None for an operation without tensor inputs. `in_place` says that the operation is
    declared to write its result into this input.
    """

    value: torch.Tensor | None
    dtype: torch.dtype | None
    shape: tuple[int, ...] | None
    device_type: str | None
    input_device_type: str | None
    input_intact: bool
    canaries_intact: bool
    aliases_input: bool
    in_place: bool = False


def observe(
    output: torch.Tensor | None, inputs: Sequence[GuardedTensor] = (), *, in_place: bool = False
) -> Observation:
    """Take down what a rank got and in what state its inputs are, after the operation has finished.

    Raises TypeError for an output that is neither a tensor nor None.
    """
    if output is not None and not isinstance(output, torch.Tensor):
        raise TypeError(f"an operation on tensors gave a {type(output).__name__}, not a tensor or None")
    return Observation(
        value=None if output is None else contiguous_copy(output).cpu(),
        dtype=None if output is None else output.dtype,
        shape=None if output is None else tuple(output.shape),
        device_type=None if output is None else output.device.type,
        input_device_type=inputs[0].tensor.device.type if inputs else None,
        input_intact=all(each.values_intact() for each in inputs),
        canaries_intact=all(each.canaries_intact() for each in inputs),
        aliases_input=output is not None and any(aliases(output, each.tensor) for each in inputs),
        in_place=in_place,
    )
