"""What needs no second rank: settings, refusals and the life of a world of one rank."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from pytest_vdist import DistributedRun, current_rank
from pytest_vdist.reference_impl import environment, model_parallel
from pytest_vdist.reference_impl.coordinator import GroupCoordinator
from pytest_vdist.reference_impl.environment import (
    create_group,
    destroy_distributed_environment,
    distributed_environment_is_initialized,
    get_world_group,
    init_distributed_environment,
)

Start = Callable[..., None]

VARIABLES = (
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "VDIST_DISTRIBUTED_TIMEOUT_SECONDS",
    "VDIST_CPU_DISTRIBUTED_TIMEOUT_SECONDS",
)


@pytest.fixture(autouse=True)
def _clean_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    yield
    destroy_distributed_environment()
    if dist.is_initialized():
        dist.destroy_process_group()


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Return a function that starts a world of one rank; each call has a rendezvous of its own."""
    number = iter(range(100))

    def start(**settings: Any) -> None:
        everything: dict[str, Any] = {"world_size": 1, "rank": 0, "device_type": "cpu"} | settings
        init_distributed_environment(
            distributed_init_method=f"file://{tmp_path}/store{next(number)}", **everything
        )

    return start


def timeout_of(group: dist.ProcessGroup) -> float:
    backend: Any = group._get_backend(torch.device("cpu"))
    return float(backend.options._timeout.total_seconds())


def test_torch_picks_the_backend_of_the_default_group(start: Start) -> None:
    start()
    assert dist.get_backend_config() == "cpu:gloo"


def test_a_backend_that_is_named_is_taken(start: Start) -> None:
    start(backend="gloo")
    assert dist.get_backend() == "gloo"


def test_torch_is_told_the_device_where_it_would_pick_another(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "torch_device_type", lambda: "cuda")
    start()
    assert dist.get_backend() == "cpu:gloo"
    assert get_world_group().all_reduce(torch.ones(1)).item() == 1


def test_a_world_can_be_made_again_after_it_was_destroyed(start: Start) -> None:
    for _ in range(3):
        start()
        assert get_world_group().unique_name == "world:0"
        assert get_world_group().all_reduce(torch.ones(2)).tolist() == [1, 1]
        destroy_distributed_environment()
        assert not dist.is_initialized()
        assert not distributed_environment_is_initialized()


def test_destroying_the_environment_destroys_every_coordinator(start: Start) -> None:
    start()
    group = create_group([[0]], "tp")
    destroy_distributed_environment()
    with pytest.raises(RuntimeError, match="group 'tp:0' is destroyed"):
        group.all_reduce(torch.ones(1))


def test_groups_that_nobody_refers_to_are_destroyed_as_all_others(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ranks may forget different ones, and NCCL's groups wait for each other when they are destroyed."""
    start()
    create_group([[0]], "forgotten")
    kept = create_group([[0]], "kept")
    gc.collect()
    destroyed: list[str] = []
    destroy = dist.destroy_process_group

    def note(group: dist.ProcessGroup | None = None) -> None:
        destroyed.append("the default group" if group is None else group.group_desc)
        destroy(group)

    monkeypatch.setattr(dist, "destroy_process_group", note)
    destroy_distributed_environment()
    assert kept.is_destroyed
    names = [description.removesuffix(":device") for description in destroyed if "cpu" not in description]
    assert sorted(names[:-1]) == ["forgotten:0", "kept:0", "world:0"]
    assert names[-1] == "the default group"


def test_groups_are_destroyed_at_the_same_time(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """NCCL waits half a second in each."""
    start()
    create_group([[0]], "tp")
    all_there = threading.Barrier(2)
    destroy = GroupCoordinator.destroy

    def destroy_when_all_are_there(self: GroupCoordinator) -> None:
        all_there.wait(20)
        destroy(self)

    monkeypatch.setattr(GroupCoordinator, "destroy", destroy_when_all_are_there)
    destroy_distributed_environment()
    assert not all_there.broken


AT_EXIT = """
import atexit, sys
from pytest_vdist.reference_impl import environment

def destroy():
    group = environment.get_world_group()
    environment.destroy_distributed_environment()
    print(f"destroyed: {group.is_destroyed}")

environment.init_distributed_environment(1, 0, f"file://{sys.argv[1]}", device_type="cpu")
atexit.register(destroy)
"""


def test_the_environment_can_be_destroyed_when_the_interpreter_ends(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", AT_EXIT, str(tmp_path / "store")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.stdout == "destroyed: True\n", ended.stderr


def test_where_no_thread_starts_groups_are_destroyed_one_after_the_other(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in functions of atexit from Python 3.12 on."""
    start()
    groups = [get_world_group(), create_group([[0]], "tp")]

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        destroy_distributed_environment()
    assert all(group.is_destroyed for group in groups)


def test_what_a_group_raises_when_it_is_destroyed_is_raised_after_all_have_ended(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    start()
    first, second = create_group([[0]], "first"), create_group([[0]], "second")
    destroy = GroupCoordinator.destroy

    def destroy_one(self: GroupCoordinator) -> None:
        if self is first:
            raise RuntimeError("the device is gone")
        destroy(self)

    with monkeypatch.context() as patch:
        patch.setattr(GroupCoordinator, "destroy", destroy_one)
        with pytest.raises(RuntimeError, match="the device is gone"):
            destroy_distributed_environment()
    assert second.is_destroyed


def test_destroying_without_an_environment_does_nothing() -> None:
    destroy_distributed_environment()
    assert not distributed_environment_is_initialized()


def test_a_second_initialisation_with_the_same_world_changes_nothing(start: Start) -> None:
    start()
    world = get_world_group()
    start()
    start(world_size=-1, rank=-1)
    assert get_world_group() is world


@pytest.mark.parametrize("settings", [{"world_size": 2}, {"rank": 1}])
def test_a_second_initialisation_with_another_world_is_refused(
    start: Start, settings: dict[str, Any]
) -> None:
    start()
    with pytest.raises(
        RuntimeError, match=r"initialised as rank 0 of 1, .* call destroy_distributed_environment"
    ):
        start(**settings)


def test_the_default_group_of_a_launcher_is_taken_over_and_left_to_it(tmp_path: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    init_distributed_environment(device_type="cpu")
    assert get_world_group().ranks == [0]
    destroy_distributed_environment()
    assert dist.is_initialized()


def test_the_default_group_of_a_launcher_must_have_the_world_asked_for(tmp_path: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    with pytest.raises(RuntimeError, match="the launcher made a default process group as rank 0 of 1"):
        init_distributed_environment(world_size=2, rank=0, device_type="cpu")


def test_a_default_group_that_somebody_destroyed_is_told(start: Start) -> None:
    start()
    dist.destroy_process_group()
    with pytest.raises(RuntimeError, match="its default process group is gone"):
        start()
    destroy_distributed_environment()
    start()
    assert get_world_group().world_size == 1


def test_rank_and_world_size_come_from_the_environment(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("LOCAL_RANK", "5")
    start(world_size=-1, rank=-1)
    assert get_world_group().local_rank == 5


@pytest.mark.parametrize(
    ("settings", "variable"), [({"rank": -1}, "RANK"), ({"world_size": -1}, "WORLD_SIZE")]
)
def test_a_missing_setting_is_refused_naming_its_variable(
    start: Start, settings: dict[str, Any], variable: str
) -> None:
    with pytest.raises(ValueError, match=f"the environment has no {variable}: pass"):
        start(**settings)


@pytest.mark.parametrize("text", ["", "one", "-1", "1.5"])
def test_a_variable_that_is_no_number_is_refused(
    start: Start, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("RANK", text)
    with pytest.raises(ValueError, match=f"RANK='{text}' is not a number of 0 or more"):
        start(rank=-1)


def test_a_rank_outside_the_world_is_refused(start: Start) -> None:
    with pytest.raises(ValueError, match="rank=1 is not in a world of 1 ranks"):
        start(rank=1)


def test_a_failed_start_leaves_no_default_group(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError("no device")

    monkeypatch.setattr(environment, "GroupCoordinator", fail)
    with pytest.raises(OSError, match="no device"):
        start()
    assert not dist.is_initialized()


def test_timeouts_reach_every_group(start: Start) -> None:
    start(timeout=7, cpu_timeout=11)
    group = create_group([[0]])
    for coordinator in (get_world_group(), group):
        assert timeout_of(coordinator.device_group) == 7
        assert timeout_of(coordinator.cpu_group) == 11
    assert timeout_of(group.make_sibling_device_group()) == 7


def test_timeouts_come_from_the_environment(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VDIST_DISTRIBUTED_TIMEOUT_SECONDS", "7")
    monkeypatch.setenv("VDIST_CPU_DISTRIBUTED_TIMEOUT_SECONDS", "11")
    start()
    assert timeout_of(get_world_group().device_group) == 7
    assert timeout_of(get_world_group().cpu_group) == 11


def test_the_timeouts_of_a_coordinator_may_differ_from_the_world(start: Start) -> None:
    start(timeout=7, cpu_timeout=11)
    group = create_group([[0]], timeout=3, cpu_timeout=4)
    assert timeout_of(group.device_group) == 3
    assert timeout_of(group.cpu_group) == 4


@pytest.mark.parametrize("option", ["timeout", "cpu_timeout"])
def test_a_wrong_timeout_is_refused_before_a_group_is_made(start: Start, option: str) -> None:
    with pytest.raises(ValueError, match=f"{option}=-1"):
        start(**{option: -1})
    assert not dist.is_initialized()


def test_there_is_no_world_before_initialisation() -> None:
    with pytest.raises(RuntimeError, match=r"call init_distributed_environment\(\) first"):
        get_world_group()


def test_there_is_no_coordinator_before_initialisation() -> None:
    with pytest.raises(RuntimeError, match="there is no default process group"):
        GroupCoordinator([[0]], 0, device_type="cpu")


def test_model_parallel_groups_live_with_the_world(start: Start) -> None:
    start()
    assert not model_parallel.model_parallel_is_initialized()
    model_parallel.initialize_model_parallel()
    assert model_parallel.get_tp_group().unique_name == "tp:0"
    assert model_parallel.get_tensor_model_parallel_world_size() == 1
    model_parallel.ensure_model_parallel_initialized(1, 1)
    destroy_distributed_environment()
    assert not model_parallel.model_parallel_is_initialized()


def test_model_parallel_groups_are_made_once(start: Start) -> None:
    start()
    model_parallel.initialize_model_parallel()
    with pytest.raises(RuntimeError, match=r"call destroy_model_parallel\(\) first"):
        model_parallel.initialize_model_parallel()
    with pytest.raises(ValueError, match=r"= \(1, 1, 1\) exist, and \(2, 1, 1\) was asked for"):
        model_parallel.ensure_model_parallel_initialized(2, 1)
    model_parallel.destroy_model_parallel()
    model_parallel.destroy_model_parallel()
    with pytest.raises(RuntimeError, match=r"call initialize_model_parallel\(\) first"):
        model_parallel.get_dp_group()


@pytest.mark.filterwarnings("ignore:Device capability of nobody")
def test_after_refused_and_failed_initialisations_ranks_find_each_other(
    distributed_run: DistributedRun, tmp_path: Path
) -> None:
    """Torch counts groups that were never made, and names the next ones by their number."""

    def body() -> list[float]:
        here = current_rank()

        def start(name: str, **settings: Any) -> None:
            place = f"file://{tmp_path}/{name}"
            init_distributed_environment(2, here.rank, place, here.local_rank, device_type="cpu", **settings)

        if here.rank == 1:
            with pytest.raises((AssertionError, ValueError), match="nobody"):  # torch says either
                start("refused", backend="nobody")
        else:
            with pytest.raises(RuntimeError, match="limit 1 s"):
                start("absent", timeout=1)
        start("together")
        total = get_world_group().all_reduce(torch.tensor([1.0 + here.rank]))
        destroy_distributed_environment()
        return total.tolist()

    assert distributed_run(body, init_process_group=False, timeout=20) == [[3.0], [3.0]]
