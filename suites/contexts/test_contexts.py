"""What programs set around their calls, and the threads that they call from, change no operation."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import torch

from pytest_vdist import Capabilities, Coordinator, CoordinatorRun, current_rank, own_coordinator
from pytest_vdist.judge import Observation
from pytest_vdist.judge.cases import Case, Through, assert_cases, directly, judge, perform_all
from pytest_vdist.judge.every_call import collectives, message_kinds, messages_expected, pass_messages

pytestmark = pytest.mark.vdist_world_size(min=2, max=2)
DEADLINE = 60.0
LARGE = 1 << 18


def within(context: Callable[[], AbstractContextManager[Any]]) -> Through:
    """Return what makes a call within a context."""

    def through(call: Callable[[], Any]) -> Any:
        with context():
            return call()

    return through


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Let new tensors of floats have another dtype, as models in half precision are loaded."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def from_another_thread(call: Callable[[], Any]) -> Any:
    """Make a call from a thread that has never made one, and that works on the same device."""
    device = current_rank().device

    def select_device() -> None:
        if device.type != "cpu":
            module: Any = torch.get_device_module(device)
            module.set_device(device)

    with ThreadPoolExecutor(1, initializer=select_device) as threads:
        return threads.submit(call).result(DEADLINE)


def assert_every_call_is_right(
    run: CoordinatorRun, world_size: int, capabilities: Capabilities, through: Through
) -> None:
    """Assert that every operation gives what it gives elsewhere when it is called `through` that."""
    assert_cases(run, collectives(world_size, capabilities), world_size=world_size, through=through)
    kinds = message_kinds(capabilities)
    ranks = list(range(world_size))

    def body(group: Coordinator) -> dict[str, list[Any]]:
        got: dict[str, list[Any]] = through(lambda: pass_messages(group, ranks, kinds))
        return got

    for rank, got in enumerate(run(body, world_size=world_size)):
        assert got == messages_expected(ranks, rank, kinds), f"rank {rank}"


def pass_large(group: Coordinator) -> int:
    """Return the sum of a tensor that is too large to travel as short messages do, sent or received."""
    tensor_dict: Any = {"rows": torch.arange(LARGE, device=group.device)}
    if group.rank_in_group == 0:
        group.send_tensor_dict(tensor_dict, 1)
    else:
        tensor_dict = group.recv_tensor_dict(0)
    return int(tensor_dict["rows"].sum())


@pytest.mark.vdist_requirement("VD-CTX-001")
@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_without_gradients_every_call_does_the_same(
    coordinator_run: CoordinatorRun,
    world_size: int,
    capabilities: Capabilities,
    mode: Callable[[], AbstractContextManager[Any]],
) -> None:
    """Within inference_mode and no_grad every operation gives what it gives without them."""
    assert_every_call_is_right(coordinator_run, world_size, capabilities, within(mode))


@pytest.mark.vdist_requirement("VD-CTX-001")
@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_coordinators_that_were_made_without_gradients_work_with_them(
    coordinator_run: CoordinatorRun,
    world_size: int,
    capabilities: Capabilities,
    mode: Callable[[], AbstractContextManager[Any]],
) -> None:
    """What a coordinator keeps since it was made or first used in such a mode serves it outside as well."""
    large = Case("all_reduce", (262147,), torch.float32)
    cases = [
        *collectives(world_size, capabilities),
        *([large] if capabilities.supports("all_reduce") else []),
    ]
    later = [case.with_other_values(100 + number) for number, case in enumerate(cases)]
    ranks = list(range(world_size))
    kinds = message_kinds(capabilities)

    def body(_: Coordinator) -> tuple[list[Observation], list[dict[str, list[Any]]]]:
        through = within(mode)
        group = through(lambda: own_coordinator([ranks]))
        observations, messages = [], []
        try:
            for way, own_cases in ((through, cases), (directly, later)):
                observations += perform_all(group, own_cases, way)
                messages.append(way(lambda: pass_messages(group, ranks, kinds)))
                if "p2p_dicts" in kinds:
                    messages[-1]["large dict"] = [way(lambda: pass_large(group))]
        finally:
            group.destroy()
        return observations, messages

    observations, messages = zip(*coordinator_run(body, world_size=world_size), strict=True)
    for number, case in enumerate([*cases, *later]):
        judge(case, [each[number] for each in observations])
    large_sums = {"large dict": [LARGE * (LARGE - 1) // 2]} if "p2p_dicts" in kinds else {}
    for rank, got in enumerate(messages):
        assert got == [messages_expected(ranks, rank, kinds) | large_sums] * 2, f"rank {rank}"


@pytest.mark.vdist_requirement("VD-CTX-002")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_default_dtype_changes_no_call(
    coordinator_run: CoordinatorRun, world_size: int, capabilities: Capabilities, dtype: torch.dtype
) -> None:
    """Whatever torch's default dtype is, tensors keep theirs and their values."""
    assert_every_call_is_right(
        coordinator_run, world_size, capabilities, within(lambda: default_dtype(dtype))
    )


@pytest.mark.vdist_requirement("VD-CTX-003")
def test_the_default_device_changes_no_call(
    coordinator_run: CoordinatorRun, world_size: int, capabilities: Capabilities
) -> None:
    """Where new tensors go by default, here where they have no memory, changes no operation."""
    assert_every_call_is_right(
        coordinator_run, world_size, capabilities, within(lambda: torch.device("meta"))
    )


@pytest.mark.vdist_requirement("VD-CTX-004")
def test_calls_may_come_from_another_thread(
    coordinator_run: CoordinatorRun, world_size: int, capabilities: Capabilities
) -> None:
    """A thread that did not make the coordinator may call every operation, one at a time."""
    assert_every_call_is_right(coordinator_run, world_size, capabilities, from_another_thread)


@pytest.mark.vdist_requirement("VD-CTX-005")
def test_tensors_that_require_gradients_are_taken_like_others(
    coordinator_run: CoordinatorRun, world_size: int, capabilities: Capabilities
) -> None:
    """Parameters are gathered and sent by value, and require gradients after it as before."""

    def body(group: Coordinator) -> list[Any]:
        mine = torch.nn.Parameter(torch.full((2, 3), float(group.rank_in_group + 1), device=group.device))
        peer = 1 - group.rank_in_group
        got: dict[str, Any] = {}
        if capabilities.supports("all_gather"):
            got["all_gather"] = group.all_gather(mine, 0)
        if capabilities.supports("broadcast_tensor_dict"):
            dictionary = group.broadcast_tensor_dict({"weight": mine} if peer else None, src=0)
            assert dictionary is not None
            got["broadcast_tensor_dict"] = dictionary["weight"]
        if capabilities.supports("send") and group.rank_in_group == 0:
            group.send(mine, peer)
        elif capabilities.supports("send"):
            got["send"] = group.recv((2, 3), mine.dtype, peer)
        values = {name: tensor.detach().flatten().tolist() for name, tensor in got.items()}
        return [values, mine.requires_grad, mine.is_leaf, mine.flatten().tolist()]

    for rank, (values, *after) in enumerate(coordinator_run(body, world_size=world_size)):
        expected = {"all_gather": [1.0] * 6 + [2.0] * 6, "broadcast_tensor_dict": [1.0] * 6}
        expected |= {"send": [1.0] * 6} if rank == 1 else {}
        assert values == {name: expected[name] for name in expected if capabilities.supports(name)}, (
            f"rank {rank}"
        )
        assert after == [True, True, [float(rank + 1)] * 6], f"rank {rank}: its own tensor"


@pytest.mark.vdist_requirement("VD-CTX-006")
def test_no_call_draws_random_numbers_of_the_program(
    coordinator_run: CoordinatorRun, world_size: int, capabilities: Capabilities
) -> None:
    """The generators of torch, on CPU and device, and that of Python go on after every call as before it."""
    cases = collectives(world_size, capabilities)
    kinds = message_kinds(capabilities)
    ranks = list(range(world_size))

    def body(group: Coordinator) -> list[str]:
        drawn: list[str] = []

        def through(call: Callable[[], Any]) -> Any:
            before = states_of_generators(group.device)
            result = call()
            after = states_of_generators(group.device)
            drawn.extend(name for name, state in before.items() if after[name] != state)
            return result

        perform_all(group, cases, through)
        through(lambda: pass_messages(group, ranks, kinds))
        return drawn

    assert coordinator_run(body, world_size=world_size) == [[]] * world_size, (
        "generators that were drawn from"
    )


def states_of_generators(device: torch.device) -> dict[str, Any]:
    states: dict[str, Any] = {"Python's": random.getstate(), "torch's": torch.get_rng_state().tolist()}
    if device.type != "cpu":
        module: Any = torch.get_device_module(device)
        states[f"torch's on {device}"] = module.get_rng_state(device).tolist()
    return states
