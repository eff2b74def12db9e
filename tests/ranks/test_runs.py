"""What a function sees and what comes back when ranks run it."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.distributed as dist

from pytest_vdist import CannotTravelError, DistributedRun, RanksFailedError, current_rank


@dataclass(frozen=True)
class Point:
    x: int


def test_results_come_back_by_rank(distributed_run: DistributedRun) -> None:
    assert distributed_run(lambda: current_rank().rank, world_size=4) == [0, 1, 2, 3]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 8])
def test_ranks_talk_over_a_real_process_group(distributed_run: DistributedRun, size: int) -> None:
    def body(offset: int) -> torch.Tensor:
        x = torch.full((4,), float(dist.get_rank() + offset))
        dist.all_reduce(x)
        return x

    results = distributed_run(body, 1, world_size=size)

    assert [result.tolist() for result in results] == [[size * (size + 1) / 2] * 4] * size


def test_the_environment_is_that_of_a_launcher(distributed_run: DistributedRun) -> None:
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")

    first, second = distributed_run(lambda: [os.environ[name] for name in names], world_size=2)

    assert first[:5] == ["0", "0", "2", "2", "127.0.0.1"]
    assert second[:5] == ["1", "1", "2", "2", "127.0.0.1"]
    assert first[5] == second[5]


def test_env_init_works_where_no_process_group_was_asked_for(distributed_run: DistributedRun) -> None:
    def body() -> tuple[bool, float]:
        before = dist.is_initialized()
        dist.init_process_group("gloo")
        x = torch.ones(1)
        dist.all_reduce(x)
        return before, x.item()

    for _ in range(2):
        assert distributed_run(body, init_process_group=False) == [(False, 2.0)] * 2


def test_closures_lambdas_and_parameters_travel(distributed_run: DistributedRun) -> None:
    factor = 3

    def scale(value: int) -> int:
        return value * factor

    assert distributed_run(lambda *args, plus: scale(args[0]) + plus, 2, plus=1) == [7, 7]


def test_classes_of_the_test_module_come_back_as_themselves(distributed_run: DistributedRun) -> None:
    results = distributed_run(lambda point: Point(point.x + current_rank().rank), Point(5))

    assert results == [Point(5), Point(6)]
    assert all(isinstance(result, Point) for result in results)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(6.0).reshape(2, 3).t(),
        torch.arange(8)[::2],
        torch.empty(0, 3, dtype=torch.bfloat16),
        torch.tensor(2.5),
        torch.tensor([True, False]),
        torch.tensor([1 + 2j]),
        torch.zeros(2, dtype=torch.float8_e4m3fn),
        torch.ones(2, requires_grad=True),
    ],
    ids=["transposed", "strided", "empty", "scalar", "bool", "complex", "float8", "grad"],
)
def test_tensors_travel_both_ways(distributed_run: DistributedRun, tensor: torch.Tensor) -> None:
    for result in distributed_run(lambda x: x, tensor):
        assert result.dtype == tensor.dtype
        assert result.shape == tensor.shape
        assert result.requires_grad == tensor.requires_grad
        assert result.tolist() == tensor.tolist()


def test_processes_and_process_group_are_kept_between_clean_runs(distributed_run: DistributedRun) -> None:
    def body() -> tuple[int, int]:
        dist.barrier()
        return os.getpid(), id(dist.group.WORLD)

    assert distributed_run(body) == distributed_run(body)


def test_a_group_left_behind_costs_the_process_group_but_not_the_processes(
    distributed_run: DistributedRun,
) -> None:
    def leave_a_group() -> int:
        dist.new_group([0, 1])
        return os.getpid()

    def count_groups() -> tuple[int, int]:
        group = dist.new_group([0, 1])
        return os.getpid(), int(group.group_name)

    pids = distributed_run(leave_a_group)

    assert distributed_run(count_groups) == [(pid, 1) for pid in pids]


def test_a_message_that_nobody_received_does_not_reach_the_next_run(distributed_run: DistributedRun) -> None:
    def send_only() -> None:
        if dist.get_rank() == 0:
            dist.isend(torch.ones(1), 1)

    def receive() -> float:
        x = torch.full((1,), 7.0)
        if dist.get_rank() == 0:
            dist.send(x, 1)
            return 7.0
        x.zero_()
        dist.recv(x, 0)
        return x.item()

    distributed_run(send_only)

    assert distributed_run(receive) == [7.0, 7.0]


def test_fresh_ranks_are_new_processes_and_end_after_the_run(distributed_run: DistributedRun) -> None:
    warm = distributed_run(os.getpid)
    fresh = distributed_run(os.getpid, fresh=True)

    assert not set(warm) & set(fresh)
    assert not any(_is_alive(pid) for pid in fresh)
    assert distributed_run(os.getpid) == warm


def test_variables_set_by_the_test_reach_the_ranks_and_leave_them(
    distributed_run: DistributedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read() -> tuple[str | None, str | None]:
        return os.environ.get("FROM_TEST"), os.environ.get("FROM_CALL")

    with monkeypatch.context() as patch:
        patch.setenv("FROM_TEST", "1")
        assert distributed_run(read, env={"FROM_CALL": "2"}) == [("1", "2")] * 2
    assert distributed_run(read) == [(None, None)] * 2


def test_what_a_function_changes_in_its_process_is_put_back(distributed_run: DistributedRun) -> None:
    def state() -> tuple[Any, ...]:
        random = torch.rand(1).item()
        return "LEFT" in os.environ, os.getcwd(), torch.get_default_dtype(), torch.is_grad_enabled(), random

    def change() -> None:
        os.environ["LEFT"] = "1"
        os.chdir("/")
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        torch.manual_seed(5)

    before = distributed_run(state)
    distributed_run(change)

    assert distributed_run(state) == before


def test_ranks_start_from_the_same_seed(distributed_run: DistributedRun) -> None:
    first, second = distributed_run(lambda: torch.rand(3).tolist())

    assert first == second


def test_something_that_cannot_travel_is_named_before_anything_runs(distributed_run: DistributedRun) -> None:
    lock = threading.Lock()

    with pytest.raises(
        CannotTravelError, match=r"can't be sent to the ranks: its variable 'lock', a _thread\.lock"
    ):
        distributed_run(lambda: lock)
    with pytest.raises(CannotTravelError, match=r"argument 0, a _thread\.lock, can't be pickled"):
        distributed_run(lambda x: x, lock)
    with pytest.raises(CannotTravelError, match=r"argument 'x', a _thread\.lock"):
        distributed_run(lambda x: x, x=lock)


def _make_device() -> object:
    raise RuntimeError("no such device")


class _Unloadable:
    """What a device is that only the ranks have registered."""

    def __reduce__(self) -> tuple[Callable[[], object], tuple[()]]:
        return _make_device, ()


def test_a_result_that_only_ranks_can_make_is_a_clear_error(distributed_run: DistributedRun) -> None:
    with pytest.raises(
        CannotTravelError,
        match=r"can't be made in the controller \(RuntimeError: no such device\); return tensors",
    ):
        distributed_run(_Unloadable)


def test_an_async_function_is_refused_as_nothing_of_it_runs(distributed_run: DistributedRun) -> None:
    async def body() -> int:
        return 1

    with pytest.raises(RanksFailedError, match="body is an async function, of which nothing has run: give"):
        distributed_run(body, world_size=1)
    assert distributed_run(lambda: asyncio.run(body()), world_size=1) == [1]


@pytest.mark.parametrize("size", [0, -1, 2.0, True, "2", 1025])
def test_a_bad_world_size_is_refused(distributed_run: DistributedRun, size: Any) -> None:
    with pytest.raises(ValueError, match=r"world_size must be a whole number from 1 to 1024, got"):
        distributed_run(lambda: None, world_size=size)


@pytest.mark.parametrize("timeout", [0, -1, 1e9, float("nan"), float("inf"), "5"])
def test_a_bad_timeout_is_refused(distributed_run: DistributedRun, timeout: Any) -> None:
    with pytest.raises(ValueError, match=r"timeout must be a number of seconds up to 86400 \(a day\), got"):
        distributed_run(lambda: None, timeout=timeout)


def test_env_takes_text_only(distributed_run: DistributedRun) -> None:
    with pytest.raises(TypeError, match="env must map names to text, got 'A': 1"):
        distributed_run(lambda: None, env={"A": 1})  # type: ignore[dict-item]


def test_outside_a_rank_there_is_no_current_rank() -> None:
    with pytest.raises(RuntimeError, match="in a process that is no rank"):
        current_rank()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
