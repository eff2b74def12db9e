from __future__ import annotations

import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest
import torch

from pytest_vdist.reference_impl import platform
from pytest_vdist.reference_impl.communicators.base import DeviceCommunicatorBase
from pytest_vdist.reference_impl.communicators.cpu import CpuCommunicator
from pytest_vdist.reference_impl.communicators.cuda import CudaCommunicator
from pytest_vdist.reference_impl.communicators.xpu import XpuCommunicator


@pytest.mark.parametrize(
    ("device_type", "cls"), [("cpu", CpuCommunicator), ("cuda", CudaCommunicator), ("xpu", XpuCommunicator)]
)
def test_a_known_device_has_its_own_communicator(device_type: str, cls: type[DeviceCommunicatorBase]) -> None:
    assert platform.communicator_class(device_type) is cls


def test_a_device_that_registered_no_communicator_gets_the_one_on_torch_distributed() -> None:
    assert platform.communicator_class("newdev") is DeviceCommunicatorBase


def test_a_vendor_registers_the_communicator_of_its_device(monkeypatch: pytest.MonkeyPatch) -> None:
    class NewCommunicator(DeviceCommunicatorBase):
        pass

    monkeypatch.setattr(platform, "_communicators", {})
    platform.register_communicator("xpu", NewCommunicator)
    assert platform.communicator_class("xpu") is NewCommunicator
    assert platform.communicator_class("cpu") is DeviceCommunicatorBase


def test_a_communicator_under_a_name_that_is_no_device_type_is_not_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(platform, "_communicators", {"cpu": DeviceCommunicatorBase})
    platform.register_communicator("newdev-2", DeviceCommunicatorBase)
    assert platform.communicator_class("cpu") is DeviceCommunicatorBase
    expected = (
        r"register_communicator\('newdev-2', .*DeviceCommunicatorBase.*\): torch has no device type "
        r"'newdev-2' in this process, and no communicator was registered for groups on 'xpu'; pass the"
    )
    with pytest.raises(ValueError, match=expected):
        platform.communicator_class("xpu")


def test_the_cpu_has_no_index() -> None:
    assert platform.local_device("cpu", 3) == torch.device("cpu")


def test_a_negative_local_rank_is_refused() -> None:
    with pytest.raises(ValueError, match=r"local_rank=-1: .* LOCAL_RANK"):
        platform.local_device("cpu", -1)


def test_a_device_that_torch_does_not_know_is_refused() -> None:
    with pytest.raises(ValueError, match="device_type='newdev': torch has no such device"):
        platform.device_module("newdev")


@pytest.fixture
def two_devices(monkeypatch: pytest.MonkeyPatch) -> Any:
    module: Any = ModuleType("xpu")
    module.device_count = lambda: 2
    module.selected = []
    module.set_device = module.selected.append
    monkeypatch.setattr(platform, "device_module", lambda _: module)
    return module


@pytest.mark.usefixtures("two_devices")
def test_the_local_rank_is_the_index_of_the_device() -> None:
    assert platform.local_device("xpu", 1) == torch.device("xpu", 1)


@pytest.mark.usefixtures("two_devices")
def test_a_local_rank_beyond_the_devices_is_refused_with_ways_out() -> None:
    with pytest.raises(ValueError, match=r"local_rank=2: this process sees 2 device\(s\) of type 'xpu'"):
        platform.local_device("xpu", 2)


def test_selecting_a_device_makes_it_current(two_devices: Any) -> None:
    platform.select_device(torch.device("xpu", 1))
    platform.select_device(torch.device("cpu"))
    assert two_devices.selected == [torch.device("xpu", 1)]


def test_a_named_device_type_is_taken_without_asking_torch() -> None:
    assert platform.resolve_device_type("newdev") == "newdev"


def test_importing_the_reference_asks_torch_for_no_accelerator() -> None:
    program = """
import torch
def fail(*args, **kwargs):
    raise AssertionError("asked for an accelerator at import")
for module, name in [(torch.accelerator, "is_available"), (torch.accelerator, "current_accelerator"),
                     (torch.cuda, "is_available"), (torch.cuda, "device_count"), (torch.xpu, "is_available")]:
    setattr(module, name, fail)
import pytest_vdist.reference_impl.model_parallel
print("imported")
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert result.stdout == "imported\n", result.stderr
