"""What this device needs of torch beyond its public interface, with the versions it was checked with."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import torch
from torch.distributed import distributed_c10d


def privateuse1_name() -> str:
    """Return the name under which this process knows PrivateUse1: "privateuseone" until it is renamed.

    torch 2.11 to 2.15: `torch._C._get_privateuse1_backend_name`; the public interface can rename only.
    """
    return str(torch._C._get_privateuse1_backend_name())


def register_device_module(device_type: str, module: ModuleType) -> None:
    """Make `module` importable as `torch.<device_type>`, which torch asks for devices, seeds and streams.

    torch 2.11 to 2.15: `torch._register_device_module`, the way that torch's documentation gives to vendors.
    """
    register: Any = torch._register_device_module
    register(device_type, module)
    sys.modules[f"torch.{device_type}"] = module


def has_backend(name: str) -> bool:
    """Tell whether a process-group backend of that name is registered in this process.

    torch 2.11 to 2.15: `Backend._plugins`. Registering a second time would replace the creator silently.
    """
    return name.upper() in distributed_c10d.Backend._plugins
