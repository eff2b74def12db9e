"""Who am I: what a function learns about the rank that runs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    import torch.distributed as dist

    from pytest_vdist.implementations.protocol import InitSettings


@dataclass(frozen=True)
class RankContext:
    """The rank that runs the current function: its numbers, and the device that is its own.

    `node` is the number of the machine where torchrun has started the session on several, and else 0; ranks
    that share devices (--vdist-ranks-per-device) are numbered as on several machines.
    """

    rank: int
    world_size: int
    local_rank: int
    device: torch.device
    node: int = 0


_current: RankContext | None = None
_limits: tuple[float | None, float | None] = (None, None)


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


def init_settings(init_method: str) -> InitSettings:
    """Return the settings with which an implementation makes a world of all ranks of this run.

    `init_method` is where they meet, new for each world: `file://` and a path that does not exist yet. The
    timeouts are those of the options.
    """
    from pytest_vdist.implementations.protocol import InitSettings  # noqa: PLC0415 - only worlds of a test's own

    here = current_rank()
    timeout, cpu_timeout = _limits
    return InitSettings(
        here.rank,
        here.world_size,
        here.local_rank,
        here.device.type,
        init_method,
        timeout=timeout,
        cpu_timeout=cpu_timeout,
    )


def process_group_backend(group: dist.ProcessGroup | None = None) -> str:
    """Return class and name of the backend that moves tensors of this rank's device in the group.

    None stands for the default process group. Raises ValueError where there is none, and RuntimeError where
    the group has no backend for the device.
    """
    import torch.distributed as dist  # noqa: PLC0415 - an unused plugin must not import torch

    from pytest_vdist.ranks._compat import concrete_backend  # noqa: PLC0415 - imports torch

    chosen = group if group is not None else dist.group.WORLD
    if chosen is None:
        message = "there is no default process group in this rank: initialise it, or pass a group"
        raise ValueError(message)
    return concrete_backend(chosen, current_rank().device)


def process_group_timeout(group: dist.ProcessGroup, device: torch.device) -> float | None:
    """Return the limit, in seconds, that the group's backend for `device` has, without waiting for it.

    None where the backend keeps it to itself. Raises RuntimeError where the group has no such backend.
    """
    from pytest_vdist.ranks._compat import backend_timeout  # noqa: PLC0415 - imports torch

    return backend_timeout(group, device)


def set_group_limits(timeout: float | None, cpu_timeout: float | None) -> None:
    global _limits  # noqa: PLW0603 - a process is one rank
    _limits = (timeout, cpu_timeout)


def set_current_rank(context: RankContext | None) -> None:
    global _current  # noqa: PLW0603 - a process is one rank
    _current = context
