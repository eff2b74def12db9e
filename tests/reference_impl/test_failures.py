from __future__ import annotations

import pickle
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

from pytest_vdist.reference_impl.failures import (
    CommunicationError,
    CommunicationTimeoutError,
    GroupScope,
    Setting,
    limited_by,
    naming,
)

LIMITS: dict[Setting, timedelta | None] = {"timeout": None, "cpu_timeout": timedelta(seconds=2.5)}


class Group:
    """A group whose operations raise what they are given."""

    is_destroyed = False

    def scope(self, setting: Setting) -> GroupScope:
        return GroupScope("tp:0", 3, setting, LIMITS[setting])

    @limited_by("timeout")
    def all_reduce(self, error: Exception) -> None:
        raise error

    @limited_by("cpu_timeout")
    def broadcast_object(self, error: Exception) -> None:
        with naming("send to rank 1", self.scope("cpu_timeout")):
            raise error


def test_a_time_that_is_over_is_told_with_operation_group_rank_and_limit() -> None:
    with pytest.raises(CommunicationTimeoutError) as caught:
        Group().broadcast_object(RuntimeError("[x.cc:7] Timed out waiting\n2500ms for recv operation"))
    assert str(caught.value) == (
        "broadcast_object in group 'tp:0' on rank 3 did not finish within 2.5 s (cpu_timeout): a rank did "
        "not come, or did something else; destroy the coordinator and make a new one, or set a longer limit "
        "([x.cc:7] Timed out waiting 2500ms for recv operation)"
    )
    assert isinstance(caught.value, TimeoutError)
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_another_failure_is_told_with_what_the_backend_said() -> None:
    with pytest.raises(CommunicationError) as caught:
        Group().all_reduce(dist.DistBackendError("Connection closed by peer"))
    assert str(caught.value) == (
        "all_reduce in group 'tp:0' failed on rank 3, limit the backend's own limit (timeout): Connection "
        "closed by peer; where another rank has ended or given up, destroy the coordinator and make a new one"
    )
    assert not isinstance(caught.value, TimeoutError)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("no memory"), NotImplementedError("not here"), ValueError("dim 7")]
)
def test_errors_that_are_not_of_the_communication_stay_as_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        Group().all_reduce(error)
    assert caught.value is error


def test_a_destroyed_group_says_so_itself() -> None:
    group = Group()
    group.is_destroyed = True
    with pytest.raises(RuntimeError, match=r"^group 'tp:0' is destroyed$") as caught:
        group.all_reduce(RuntimeError("group 'tp:0' is destroyed"))
    assert type(caught.value) is RuntimeError


def test_without_a_scope_errors_stay_as_they_are() -> None:
    with pytest.raises(RuntimeError) as caught, naming("send to rank 1", None):
        raise RuntimeError("timed out")
    assert type(caught.value) is RuntimeError


def test_the_errors_travel_between_processes() -> None:
    error = CommunicationTimeoutError("barrier", Group().scope("cpu_timeout"), "Timed out")
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.scope) == (CommunicationTimeoutError, str(error), error.scope)
