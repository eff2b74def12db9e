"""Groups that share memory: who does, and what communicators without it do."""

from __future__ import annotations

import os
import platform
import time
from typing import Any

import pytest
import torch

from pytest_vdist import DistributedRun, current_rank
from pytest_vdist.reference_impl.communicators.base import DeviceCommunicatorBase
from pytest_vdist.reference_impl.communicators.shm import connect, segment
from pytest_vdist.reference_impl.coordinator import GroupCoordinator
from pytest_vdist.reference_impl.platform import register_communicator
from tests.reference_impl.shared_groups import ENVIRONMENT, LONG, communicator_of, coordinator


def test_a_rank_that_may_not_share_keeps_the_whole_group_to_torch(distributed_run: DistributedRun) -> None:
    def body() -> tuple[str | None, bool, list[float], Any]:
        os.environ["VDIST_SHARED_MEMORY"] = "0" if current_rank().rank == 1 else "1"
        group = coordinator()
        communicator = communicator_of(group)
        sums = group.all_reduce(torch.ones(2)).tolist()
        if group.rank_in_group == 0:
            group.send_tensor_dict({"t": torch.ones(2), "n": None})
        received = group.recv_tensor_dict() if group.rank_in_group == 1 else None
        return communicator.shared_memory_obstacle, communicator.supports_tensor_dict, sums, received

    for obstacle, supported, sums, _ in distributed_run(body, env=ENVIRONMENT):
        assert obstacle == "rank 1: VDIST_SHARED_MEMORY is 0"
        assert not supported
        assert sums == [2.0, 2.0]


def test_ranks_that_read_another_token_do_not_share(distributed_run: DistributedRun) -> None:
    def body() -> str | None:
        if current_rank().rank == 1:
            segment.Segment.token = property(lambda self: b"of other memory!")  # type: ignore[assignment]
        group = coordinator()
        group.barrier()
        return communicator_of(group).shared_memory_obstacle

    obstacles = distributed_run(body, env=ENVIRONMENT, fresh=True)
    assert obstacles == ["rank 1 reads another token in the memory than rank 0 has written there"] * 2


def test_a_communicator_without_a_way_of_its_own_says_which_to_take(distributed_run: DistributedRun) -> None:
    def body() -> None:
        communicator = communicator_of(coordinator())
        with pytest.raises(NotImplementedError, match=r"call send_tensor_dict of the coordinator"):
            communicator.send_tensor_dict({}, 1)
        with pytest.raises(NotImplementedError, match=r"call recv_tensor_dict of the coordinator"):
            communicator.recv_tensor_dict(1)

    distributed_run(body, env={"VDIST_SHARED_MEMORY": "0"})


def test_a_communicator_that_has_never_heard_of_tensor_dicts_is_served_by_torch(
    distributed_run: DistributedRun,
) -> None:
    class Plain:
        """A vendor's communicator of old: the methods of the protocol that this test needs, and no others."""

        def __init__(self, **groups: Any) -> None:
            self._base = DeviceCommunicatorBase(**groups)

        def all_reduce(self, input_: torch.Tensor) -> torch.Tensor:
            return self._base.all_reduce(input_)

        def destroy(self) -> None:
            self._base.destroy()

    def body() -> dict[str, Any] | None:
        register_communicator("cpu", Plain)  # type: ignore[arg-type]
        group = coordinator()
        sent = {
            "none": None,
            "nested": {"columns": torch.arange(6.0).view(2, 3).t()},
            "empty": torch.empty(0, 2),
        }
        received = group.broadcast_tensor_dict(sent if group.rank_in_group == 1 else None, 1)
        group.isend_tensor_dict(sent)
        assert str(group.recv_tensor_dict()) == str(received)
        group.barrier()
        return received

    received, sent = distributed_run(body, env=ENVIRONMENT, fresh=True)
    assert str(received) == str(sent)


def test_groups_share_memory_unless_they_are_told_not_to(distributed_run: DistributedRun) -> None:
    def body() -> tuple[str | None, bool, bool]:
        del os.environ["VDIST_SHARED_MEMORY"]
        communicator = communicator_of(coordinator())
        os.environ["VDIST_SHARED_MEMORY"] = "0"
        told = communicator_of(coordinator())
        return (
            communicator.shared_memory_obstacle,
            communicator.supports_tensor_dict,
            told.supports_tensor_dict,
        )

    has_run_here = platform.machine() in {"x86_64", "AMD64"}
    for obstacle, supported, told in distributed_run(body, env=ENVIRONMENT):
        assert (obstacle is None) == supported == has_run_here
        assert not told


def test_a_cpu_on_which_it_has_not_run_must_be_told_to_share(distributed_run: DistributedRun) -> None:
    def body() -> list[str | None]:
        platform.machine = lambda: "aarch64"
        found = []
        for value in (None, "1"):
            os.environ.pop("VDIST_SHARED_MEMORY", None)
            if value is not None:
                os.environ["VDIST_SHARED_MEMORY"] = value
            group = coordinator()
            assert group.all_reduce(torch.ones(1)).item() == 2
            found.append(communicator_of(group).shared_memory_obstacle)
        return found

    refused, allowed = distributed_run(body, env=ENVIRONMENT, fresh=True)[1]
    assert refused == (
        "rank 0: shared memory has not run on aarch64, only on AMD64, x86_64: set VDIST_SHARED_MEMORY=1 to "
        "use it all the same"
    )
    assert allowed is None


def test_where_compilers_look_into_collectives_they_are_those_of_torch(
    distributed_run: DistributedRun,
) -> None:
    def body() -> str:
        group = GroupCoordinator([[0, 1]], 0, group_name="tp", device_type="cpu", use_custom_ops=False)
        return type(group.device_communicator).__name__

    assert distributed_run(body, env=ENVIRONMENT) == ["DeviceCommunicatorBase"] * 2


def test_ranks_that_run_out_of_descriptors_stay_with_torch(distributed_run: DistributedRun) -> None:
    """One rank can answer nobody: the others see that it hangs up, and do not wait for it."""

    def body() -> tuple[str | None, float]:
        if current_rank().rank == 1:

            def answer(attempt: Any) -> None:
                raise OSError(24, "Too many open files")

            connect._Attempt._answer = answer  # type: ignore[method-assign, assignment]
        start = time.monotonic()
        obstacle = communicator_of(coordinator()).shared_memory_obstacle
        return obstacle, time.monotonic() - start

    for obstacle, seconds in distributed_run(body, env=ENVIRONMENT, fresh=True, world_size=3):
        assert obstacle is not None
        assert "cannot map the memory of rank 0" in obstacle
        assert seconds < LONG / 2
