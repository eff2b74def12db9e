"""Greedy generation of tokens by all ranks of a layout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from .layouts import parts
from .stage import Stage

Tensor = torch.Tensor
Forward = Callable[[Tensor, Tensor], Tensor]


@torch.no_grad()
def generate(stage: Stage, prompts: Tensor, count: int, forward: Forward | None = None) -> Tensor:
    """Return the `count` tokens that the model adds to each prompt, (prompts, count) int64, on every rank.

    `prompts` are those of all data ranks, (prompts, length). `forward` runs the stage, by default the stage
    itself; it may be compiled. Raises ValueError where prompt and tokens are longer than the model's longest.
    """
    longest = stage.config.longest
    if prompts.shape[1] + count > longest:
        raise ValueError(f"{prompts.shape[1]} + {count} tokens are more than the model's longest, {longest}")
    run = stage if forward is None else forward
    own = prompts[stage.prompts.start : stage.prompts.stop].to(stage.device)
    made: list[Tensor] = []
    for _ in range(count):
        new = made[-1].unsqueeze(1) if made else own
        first = own.shape[1] + len(made) - 1 if made else 0
        positions = torch.arange(first, first + new.shape[1], device=stage.device)
        made.append(_next_tokens(stage, run, new, positions))
    sizes = parts(prompts.shape[0], stage.layout.data)
    tokens: Tensor = stage.groups.data.all_gatherv(torch.stack(made, 1), 0, sizes)
    return tokens


def chosen_tokens(stage: Stage, logits: Tensor) -> Tensor:  # noqa: ARG001 - other ways need the stage
    """Return the most likely token of each sequence."""
    return logits.argmax(-1)


def _next_tokens(stage: Stage, run: Forward, new: Tensor, positions: Tensor) -> Tensor:
    """Run one step through all stages; every one of them gets the token that follows each sequence."""
    pipeline, tensor = stage.groups.pipeline, stage.groups.tensor
    slices = tensor if tensor.world_size > 1 else None
    x = new if stage.is_first else pipeline.recv_tensor_dict(all_gather_group=slices)["hidden"]
    x = run(x, positions)
    if not stage.is_last:
        pipeline.send_tensor_dict({"hidden": x}, all_gather_group=slices)
    chosen: dict[str, Any] | None = {"tokens": chosen_tokens(stage, x)} if stage.is_last else None
    received = pipeline.broadcast_tensor_dict(chosen, src=stage.layout.pipeline - 1)
    tokens: Tensor = received["tokens"]
    return tokens
