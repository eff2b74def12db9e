"""What a run gets of this machine's devices."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest

from pytest_vdist.backends.base import DeviceBackend
from pytest_vdist.backends.cpu import BACKEND as CPU
from pytest_vdist.backends.cuda import BACKEND as CUDA
from pytest_vdist.backends.devices import MachineDevices


@pytest.fixture
def backend(tmp_path: object) -> DeviceBackend:
    """Name a backend whose devices no other session leases."""
    return replace(CUDA, name=f"test{id(tmp_path)}")


@pytest.fixture
def held() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_runs_have_devices_of_their_own_unless_they_may_share(
    backend: DeviceBackend, held: ExitStack
) -> None:
    alone = MachineDevices(backend, 4)
    assert [held.enter_context(alone.hold(2)) for _ in range(2)] == [("0", "1"), ("2", "3")]


def test_runs_that_may_share_get_the_same_devices(backend: DeviceBackend, held: ExitStack) -> None:
    shared = MachineDevices(backend, 2, runs_per_device=3)
    assert [held.enter_context(shared.hold(2)) for _ in range(3)] == [("0", "1")] * 3


def test_ranks_and_runs_share_at_the_same_time(backend: DeviceBackend, held: ExitStack) -> None:
    shared = MachineDevices(backend, 1, ranks_per_device=4, runs_per_device=2)
    assert [held.enter_context(shared.hold(4)) for _ in range(2)] == [("0",)] * 2


def test_on_the_cpu_a_run_has_places_and_no_devices(held: ExitStack) -> None:
    places = MachineDevices(replace(CPU, name="test-places"), 64, runs_per_device=2)
    assert held.enter_context(places.hold(2)) == ()
