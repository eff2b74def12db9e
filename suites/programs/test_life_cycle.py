"""The life of coordinators in any order: initialisation, groups, calls, destruction, and all of it again."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pytest_vdist import (
    Capabilities,
    Coordinator,
    DistributedRun,
    ImplementationSpec,
    current_rank,
    init_settings,
)
from pytest_vdist.faults.meeting import Meeting
from pytest_vdist.strategies import partitions

SHORTEST, LONGEST = 3, 9
LIVES = 25
LONGEST_SEARCH = 15.0
"""Seconds after which no more lives are tried, those that make a failing one shorter among them."""
TIMEOUT = 20.0


@dataclass(frozen=True)
class Step:
    """What every rank does next. `group` is the number of a coordinator, in the order of their making."""

    kind: str
    group: int = 0
    ranks: tuple[tuple[int, ...], ...] = ()
    split: bool = False


def live(implementation: ImplementationSpec, folder: str, steps: Sequence[Step]) -> list[Any]:
    """Take the steps, in a rank, and return what each of them gave.

    Ranks that have made a group meet before they destroy it, unless they have called it meanwhile: gloo is
    done with its part of a group before the others are with theirs, who fail where it closes its connections.
    """
    here, world = current_rank(), implementation.load()
    groups: list[Coordinator] = []
    results: list[Any] = []
    meeting, have_met = Meeting(f"{folder}/meeting", here.rank), True

    def meet(place: int) -> None:
        if not have_met:
            meeting.gather(str(place), range(here.world_size))

    for number, step in enumerate(steps):
        if step.kind in {"destroy", "end"}:
            meet(number)
            have_met = True
        elif step.kind in {"init", "make"}:
            have_met = False
        if step.kind == "init":
            met_at = init_settings(f"file://{folder}/{number}")
            world.init(replace(met_at, split_group=step.split, timeout=TIMEOUT, cpu_timeout=TIMEOUT))
            groups.clear()
            results.append(None)
        elif step.kind == "make":
            groups.append(world.coordinator([list(ranks) for ranks in step.ranks], name="life"))
            results.append(list(groups[-1].ranks))
        elif step.kind == "end":
            world.destroy()
            results.append(dist.is_initialized())
        else:
            results.append(use(groups[step.group], step))
            have_met = have_met or (step.kind == "sum" and groups[step.group].world_size == here.world_size)
    meet(len(steps))
    world.destroy()
    return results


def use(group: Coordinator, step: Step) -> Any:
    if step.kind == "sum":
        return group.all_reduce(torch.tensor([1.0, 10.0**group.rank], device=group.device)).tolist()
    if step.kind == "object":
        return group.broadcast_object(("from", group.rank), group.world_size - 1)
    if step.kind == "destroy":
        group.destroy()
        return None
    try:
        return group.all_reduce(torch.ones(1, device=group.device)).tolist()
    except Exception as error:  # of any type, as long as it says something
        return "refused" if str(error) else "an error without a word"


class Life(RuleBasedStateMachine):
    """Writes down valid steps and what each rank must get from them; the ranks take them all at the end."""

    def __init__(self, run: Any, world_size: int, may_split: bool) -> None:
        super().__init__()
        self._run, self._size, self._may_split = run, world_size, may_split
        self.steps: list[Step] = []
        self.expected: list[list[Any]] = []
        self.groups: list[tuple[tuple[int, ...], ...]] = []
        self.destroyed: set[int] = set()
        self.initialised = False

    @initialize(split=st.booleans())
    def begin(self, split: bool) -> None:
        self._init(split)

    @precondition(lambda self: not self.initialised)
    @rule(split=st.booleans())
    def begin_again(self, split: bool) -> None:
        self._init(split)

    @precondition(lambda self: self.initialised)
    @rule(data=st.data())
    def make(self, data: st.DataObject) -> None:
        ranks = data.draw(partitions(self._size))
        self._note(Step("make", ranks=ranks), [list(self._own(ranks, rank)) for rank in range(self._size)])
        self.groups.append(ranks)

    @precondition(lambda self: self._living())
    @rule(data=st.data(), kind=st.sampled_from(["sum", "object"]))
    def call(self, data: st.DataObject, kind: str) -> None:
        number = data.draw(st.sampled_from(self._living()))
        own = [self._own(self.groups[number], rank) for rank in range(self._size)]
        if kind == "sum":
            results: list[Any] = [
                [float(len(ranks)), float(sum(10**rank for rank in ranks))] for ranks in own
            ]
        else:
            results = [("from", ranks[-1]) for ranks in own]
        self._note(Step(kind, number), results)

    @precondition(lambda self: self._living())
    @rule(data=st.data())
    def destroy(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(self._living()))
        self._note(Step("destroy", number), [None] * self._size)
        self._note(Step("use destroyed", number), ["refused"] * self._size)
        self.destroyed.add(number)

    @precondition(lambda self: self.initialised)
    @rule()
    def end(self) -> None:
        self._note(Step("end"), [False] * self._size)
        self.initialised = False

    @invariant()
    def one_result_for_each_step(self) -> None:
        assert len(self.steps) == len(self.expected)

    def teardown(self) -> None:
        if len(self.steps) >= SHORTEST:
            by_rank = self._run(self.steps)
            if by_rank is None:
                return
            for number, (step, want) in enumerate(zip(self.steps, self.expected, strict=True)):
                assert [results[number] for results in by_rank] == want, f"step {number}, {step}"

    def _init(self, split: bool) -> None:
        self._note(Step("init", split=split and self._may_split), [None] * self._size)
        self.groups, self.destroyed, self.initialised = [], set(), True

    def _living(self) -> list[int]:
        return [n for n in range(len(self.groups)) if self.initialised and n not in self.destroyed]

    def _note(self, step: Step, results: list[Any]) -> None:
        self.steps.append(step)
        self.expected.append(results)

    @staticmethod
    def _own(ranks: tuple[tuple[int, ...], ...], rank: int) -> tuple[int, ...]:
        return next(group for group in ranks if rank in group)


@pytest.mark.vdist_world_size(min=2, max=2)
@pytest.mark.vdist_requirement("VD-PRG-002")
def test_any_life_of_coordinators_is_a_good_one(  # noqa: PLR0917 - fixtures
    distributed_run: DistributedRun,
    implementation: ImplementationSpec,
    capabilities: Capabilities,
    tmp_path: Path,
    world_size: int,
    request: pytest.FixtureRequest,
) -> None:
    """Whatever was made, used and destroyed before, groups do what they should, and destroyed ones refuse."""
    known: dict[str, list[list[Any]]] = {}
    left_out: set[str] = set()
    started = time.monotonic()

    def run(steps: list[Step]) -> list[list[Any]] | None:
        """Return what every rank got from every step; None where the time for searching is over."""
        if repr(steps) not in known:
            if time.monotonic() - started > LONGEST_SEARCH:
                left_out.add(repr(steps))
                return None
            folder = tempfile.mkdtemp(dir=tmp_path)  # a life that failed is taken again elsewhere
            known[repr(steps)] = distributed_run(
                live, implementation, folder, steps, world_size=world_size, init_process_group=False
            )
        return known[repr(steps)]

    class OfThisWorld(Life):
        def __init__(self) -> None:
            super().__init__(run, world_size, capabilities.supports("split_group"))

    run_state_machine_as_test(
        OfThisWorld,
        settings=settings(
            max_examples=LIVES,
            stateful_step_count=LONGEST,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    # Shown in JUnit files: a slow machine tries fewer.
    lives = f"{len(known)} run, {len(left_out)} left out after {LONGEST_SEARCH:g} s"
    request.node.user_properties.append(("vdist lives", lives))
