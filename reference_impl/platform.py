"""Devices: which type this process uses, which device is this rank's, which communicator class serves it.

Nothing here runs at import: asking torch for its accelerator starts the driver in this process.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import cast

import torch

from .communicators.base import DeviceCommunicatorBase
from .communicators.cpu import CpuCommunicator
from .communicators.cuda import CudaCommunicator
from .communicators.protocol import Communicator
from .communicators.xpu import XpuCommunicator

CommunicatorClass = Callable[..., Communicator]

_communicators: dict[str, CommunicatorClass] = {
    "cpu": CpuCommunicator,
    "cuda": CudaCommunicator,
    "xpu": XpuCommunicator,
}


def register_communicator(device_type: str, cls: CommunicatorClass) -> None:
    """Make `cls` the communicator of every group on `device_type`, in place of the one registered before.

    `device_type` is that of the tensors, `tensor.device.type`, whatever the device backend is called.
    `cls` is called with the keyword arguments of `DeviceCommunicatorBase`: `cpu_group`, `device`,
    `device_group`, `unique_name`, `global_ranks`.
    """
    _communicators[device_type] = cls


def communicator_class(device_type: str) -> CommunicatorClass:
    """Look up the communicator class; one on torch.distributed alone where none was registered.

    Raises ValueError where none was, and another was registered for a device type that torch does not know.
    """
    misplaced = [name for name in _communicators if not _is_device_type(name)]
    if device_type not in _communicators and misplaced:
        name = misplaced[0]
        raise ValueError(
            f"register_communicator({name!r}, {_communicators[name]!r}): torch has no device type {name!r} "
            f"in this process, and no communicator was registered for groups on {device_type!r}; pass the "
            "type of the tensors' device, as in `tensor.device.type`"
        )
    return _communicators.get(device_type, DeviceCommunicatorBase)


def _is_device_type(name: str) -> bool:
    try:
        torch.device(name)
    except RuntimeError:
        return False
    return True


def resolve_device_type(device_type: str | None = None) -> str:
    """Return `device_type`, or, where it is None, torch's accelerator if this machine has one, else "cpu"."""
    if device_type is not None:
        return device_type
    return torch_device_type()


def torch_device_type() -> str:
    """Name the device type for which torch picks a process-group backend by itself."""
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return "cpu" if accelerator is None else accelerator.type


def device_module(device_type: str) -> ModuleType:
    """Return torch's module of a device type (`torch.cuda`, `torch.xpu`, a vendor's).

    Raises ValueError where torch knows no such device.
    """
    try:
        return cast("ModuleType", torch.get_device_module(device_type))
    except RuntimeError as error:
        raise ValueError(
            f"device_type={device_type!r}: torch has no such device in this process ({error}); "
            "import the package that registers it first"
        ) from error


def local_device(device_type: str, local_rank: int) -> torch.device:
    """Return this rank's device: the one whose index is `local_rank`. The CPU has no index.

    Raises ValueError for a negative `local_rank` and for one beyond the devices that this process sees.
    """
    if local_rank < 0:
        raise ValueError(
            f"local_rank={local_rank}: give this rank's number on its machine, or set LOCAL_RANK as torchrun "
            "does"
        )
    if device_type == "cpu":
        return torch.device("cpu")
    count = device_module(device_type).device_count()
    if local_rank >= count:
        raise ValueError(
            f"local_rank={local_rank}: this process sees {count} device(s) of type {device_type!r}; start "
            "fewer ranks, make more devices visible, or pass local_rank=0 where every rank sees only its own "
            "device"
        )
    return torch.device(device_type, local_rank)


def select_device(device: torch.device) -> None:
    """Make `device` the current device, so that backends which guess the device guess right."""
    if device.type != "cpu":
        device_module(device.type).set_device(device)
