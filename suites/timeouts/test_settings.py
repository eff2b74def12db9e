"""What a limit may be, and the limit of initialisation itself."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_vdist import DistributedRun, ImplementationSpec, current_rank, init_settings
from pytest_vdist.faults.meeting import Meeting
from pytest_vdist.faults.waits import Ended, Limit, attempt

LIMIT = Limit(2.0, slack=8.0)
BAD_LIMITS = (0.0, -1.0, math.nan, math.inf, 86_401.0, "60", True)


@pytest.mark.vdist_world_size(min=1, max=1)
@pytest.mark.vdist_requirement("VD-TMO-007")
def test_a_limit_that_cannot_hold_is_refused(
    distributed_run: DistributedRun, implementation: ImplementationSpec, tmp_path: Path, world_size: int
) -> None:
    """Zero, negative, no number, infinite, text, more than a day: an error names setting and value."""

    def body() -> list[tuple[str, Any, str]]:
        found = []
        for setting in ("timeout", "cpu_timeout"):
            for number, value in enumerate(BAD_LIMITS):
                world = implementation.load()
                settings = init_settings(f"file://{tmp_path}/{setting}-{number}")
                limits: dict[str, Any] = {"timeout": None, "cpu_timeout": None, setting: value}
                ended = attempt(setting, lambda: world.init(replace(settings, **limits)))  # noqa: B023 - at once
                found.append((setting, value, ended.error))
                world.destroy()
        return found

    (found,) = distributed_run(body, world_size=world_size, init_process_group=False)
    assert len(found) == 2 * len(BAD_LIMITS)
    for setting, value, error in found:
        assert error, f"{setting}={value!r} was taken"
        assert setting in error, f"the error must name {setting!r}: {error}"
        assert repr(value) in error, f"the error must name the value {value!r}: {error}"


@pytest.mark.vdist_world_size(min=2, max=2)
@pytest.mark.vdist_requirement("VD-TMO-008")
def test_initialisation_ends_where_a_rank_does_not_come(
    distributed_run: DistributedRun, implementation: ImplementationSpec, tmp_path: Path, world_size: int
) -> None:
    """A rank that initialises alone gets an error soon after the device limit; later it can begin again."""

    def body() -> tuple[Ended, list[int]]:
        here, world = current_rank(), implementation.load()
        everyone = list(range(here.world_size))
        meeting = Meeting(f"{tmp_path}/meeting", here.rank)
        meeting.gather("loaded", everyone)
        ended = Ended("init", 0.0)
        if here.rank == 0:
            settings = replace(init_settings(f"file://{tmp_path}/absent"), timeout=LIMIT.seconds)
            ended = attempt("init", lambda: world.init(settings))
        meeting.gather("tried", everyone)
        world.destroy()
        world.init(init_settings(f"file://{tmp_path}/world"))
        group = world.coordinator([everyone], name="all")
        ranks = [group.broadcast_object(group.rank, src=rank) for rank in everyone]
        world.destroy()
        return ended, ranks

    by_rank = distributed_run(body, world_size=world_size, init_process_group=False)
    ended = by_rank[0][0]
    assert ended.raised, "rank 0 initialised without rank 1"
    assert LIMIT.earliest <= ended.seconds <= LIMIT.latest, f"after {ended.seconds:.2f} s: {ended.error}"
    assert [ranks for _, ranks in by_rank] == [[0, 1]] * 2
