"""Which messages the chapter `performance` measures: few and short ones, unless it is asked for all."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from pytest_vdist.options import options_of

QUICK = (8, 65536)
FULL = tuple(8 * 8**power for power in range(10))
"""8 B to 1 GiB, as nccl-tests measure."""
_LARGEST_ON_CPU = 16 * 1024 * 1024
_CALLS_OF_SHORT = 50
_ROUNDS_OF_SHORT, _ROUNDS = 15, 5
_BYTES_A_ROUND = 1 << 30
"""An accelerator moves them in milliseconds. What ranks of the CPU move in that time is less."""
_BYTES_A_ROUND_ON_CPU = 4 * 1024 * 1024


@dataclass(frozen=True)
class Message:
    """A size in bytes, how many calls in a row are timed, and how often: the median of the rounds holds."""

    size: int
    calls: int
    rounds: int


@dataclass(frozen=True)
class Messages:
    """What to measure, shortest first, and whether its speed says something of the device."""

    sizes: list[Message]
    telling: bool


def messages(*, full: bool, on_cpu: bool) -> list[Message]:
    """Return what to measure; ranks on the CPU, which share its memory, get no more than 16 MiB."""
    most = _CALLS_OF_SHORT if full else 5
    sizes = [size for size in (FULL if full else QUICK) if not (on_cpu and size > _LARGEST_ON_CPU)]
    bytes_a_round = _BYTES_A_ROUND_ON_CPU if on_cpu else _BYTES_A_ROUND
    return [_message(size, max(2, min(most, bytes_a_round // size)), full=full) for size in sizes]


def _message(size: int, calls: int, *, full: bool) -> Message:
    # Short calls differ by few microseconds, which a disturbance of the machine hides in few rounds.
    # The quick look measures nothing so small.
    rounds = _ROUNDS_OF_SHORT if calls >= _CALLS_OF_SHORT else _ROUNDS
    return Message(size, calls, rounds if full else 3)


@pytest.fixture
def message_sizes(request: pytest.FixtureRequest, backend: str, world_size: int) -> Messages:
    """Return the messages that --vdist-performance asks for.

    Ranks and runs that share an accelerator take turns on it: a few short messages are judged, and their
    speed is not told.
    """
    options = options_of(request.config)
    device = options.backend_named(backend)
    alone = options.ranks_on_one_device(world_size, device) == 1 and (
        options.runs_per_device == 1 or device.shares_device
    )
    sizes = messages(full=alone and options.performance == "full", on_cpu=device.shares_device)
    return Messages(sizes, telling=alone)
