"""The handles of operations that torch.distributed has started: what they say, wait for and hold."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

import pytest
import torch
import torch.distributed as dist

from pytest_vdist import Capabilities
from pytest_vdist.judge import Observation
from pytest_vdist.process_groups.calls import OPERATIONS, Call
from pytest_vdist.process_groups.declared import skip_if_declared
from pytest_vdist.process_groups.judgement import GroupRun, Prepared, finish, judge

SECONDS_TO_WAIT_AGAIN = 10.0

pytestmark = pytest.mark.vdist_world_size(min=2)


def calls_beyond(limits: Mapping[str, str]) -> list[Call]:
    """Return two calls of each operation that the backend has, with different data."""
    calls = [Call(operation, (129, 2), seed=seed) for seed in (1, 2) for operation in OPERATIONS]
    return [call for call in calls if not {*call.needs} & {*limits}]


@pytest.mark.vdist_requirement("VD-PG-010", "VD-PG-011")
def test_operations_in_flight_are_waited_for_in_any_order(
    process_group_run: GroupRun, process_group_limits: Mapping[str, str], world_size: int
) -> None:
    """Operations started at once, waited for from the last to the first, and then again, are right."""
    calls = calls_beyond(process_group_limits)

    def body(group: dist.ProcessGroup, device: torch.device) -> list[Observation]:
        prepared = [Prepared.of(group, device, call) for call in calls]
        works = [each.start(group, async_op=True) for each in prepared]
        for work in (*reversed(works), *works):
            work.wait()
        return [each.observe() for each in prepared]

    by_rank = process_group_run(body, world_size=world_size)
    for number, call in enumerate(calls):
        judge(call, [each[number] for each in by_rank])


@pytest.mark.vdist_requirement("VD-PG-020")
def test_handles_say_that_operations_are_done(
    process_group_run: GroupRun,
    process_group_limits: Mapping[str, str],
    capabilities: Capabilities,
    world_size: int,
) -> None:
    """After wait(), and what the device has left to do, is_completed() of every handle is true."""
    skip_if_declared(capabilities, "process_group_completion")
    calls = calls_beyond(process_group_limits)

    def body(group: dist.ProcessGroup, device: torch.device) -> list[str]:
        open_ = []
        for call in calls:
            work = Prepared.of(group, device, call).start(group, async_op=True)
            work.wait()
            finish(device)
            open_ += [] if work.is_completed() else [str(call)]
        return open_

    for rank, unfinished in enumerate(process_group_run(body, world_size=world_size)):
        assert unfinished == [], f"rank {rank}: is_completed() is false after wait() of these"


@pytest.mark.vdist_requirement("VD-PG-012")
def test_futures_of_handles_hold_the_result(
    process_group_run: GroupRun,
    process_group_limits: Mapping[str, str],
    capabilities: Capabilities,
    world_size: int,
) -> None:
    """get_future() of every operation ends, calls what was added to it, and of all_reduce has the tensor."""
    skip_if_declared(capabilities, "process_group_futures")
    calls = calls_beyond(process_group_limits)

    def body(group: dist.ProcessGroup, device: torch.device) -> list[tuple[str, Observation | None]]:
        found: list[tuple[str, Observation | None]] = []
        for call in calls:
            prepared = Prepared.of(group, device, call)
            work = prepared.start(group, async_op=True)
            try:
                future = work.get_future()
            except RuntimeError as error:
                work.wait()
                found.append((str(error), None))
                continue
            assert future.then(lambda _: "called").wait() == "called", f"{call}: then()"
            future.wait()
            assert future.done(), f"{call}: done()"
            if call.operation == "all_reduce":
                (value,) = future.value()
                assert torch.equal(value, prepared.written()[0]), f"{call}: the future's value"
            found.append(("", prepared.observe()))
        return found

    by_rank = process_group_run(body, world_size=world_size)
    for number, call in enumerate(calls):
        errors = {each[number][0] for each in by_rank}
        observations = [each[number][1] for each in by_rank]
        if f"get_future:{call.operation}" in process_group_limits and "" not in errors:
            continue
        assert errors == {""}, f"{call}: get_future() raised {errors}"
        judge(call, [each for each in observations if each is not None])


@pytest.mark.vdist_requirement("VD-PG-013")
def test_handles_of_messages_may_be_waited_for_again(
    process_group_run: GroupRun, capabilities: Capabilities, world_size: int
) -> None:
    """A second wait() for a message that was sent or received returns, as the first one did."""
    skip_if_declared(capabilities, "process_group_message_handles")

    def body(group: dist.ProcessGroup, device: torch.device) -> str:
        here, last = dist.get_rank(group), dist.get_world_size(group) - 1
        tensor = torch.full((3,), float(here), device=device)
        if here == 0:
            work = dist.isend(tensor, group_dst=last, group=group)
        elif here == last:
            work = dist.irecv(tensor, group_src=0, group=group)
        else:
            return ""
        assert work is not None, "a handle"
        work.wait()
        ended: list[str] = []
        again = threading.Thread(target=lambda: ended.append(error_of(work.wait)), daemon=True)
        again.start()
        again.join(SECONDS_TO_WAIT_AGAIN)
        if not ended:
            return f"the second wait() has not returned after {SECONDS_TO_WAIT_AGAIN:g} s"
        if ended[0]:
            return f"the second wait() raised {ended[0]}"
        return "" if tensor.tolist() == [0.0] * 3 else f"got {tensor.tolist()}"

    assert process_group_run(body, world_size=world_size) == [""] * world_size


def error_of(call: Callable[[], object]) -> str:
    """Make the call and return the text of its error, "" without one."""
    try:
        call()
    except Exception as error:
        return str(error) or type(error).__name__
    return ""
