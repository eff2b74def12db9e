"""Who am I: what a function learns about the rank that runs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class RankContext:
    """The rank that runs the current function: its numbers, and the device that is its own."""

    rank: int
    world_size: int
    local_rank: int
    device: torch.device


_current: RankContext | None = None


def current_rank() -> RankContext:
    """Return the rank that runs the calling function.

    Raises RuntimeError outside a function that `distributed_run` runs.
    """
    if _current is None:
        message = (
            "current_rank() was called in a process that is no rank; "
            "call it inside the function that is given to distributed_run"
        )
        raise RuntimeError(message)
    return _current


def set_current_rank(context: RankContext | None) -> None:
    global _current  # noqa: PLW0603 - a process is one rank
    _current = context
