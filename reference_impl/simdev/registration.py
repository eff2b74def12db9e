"""Makes the simulated device known to torch, as a vendor's package does on import."""

from __future__ import annotations

import torch.distributed as dist
from torch.utils import backend_registration

from . import _compat
from .settings import device_count

DEVICE_TYPE = "simdev"
BACKEND_NAME = "simccl"


def register() -> None:
    """Register the device, its module `torch.simdev` and its process-group backend; once is enough.

    The device becomes torch's accelerator, for which `init_process_group` picks simccl. Raises BuildError,
    ValueError for a wrong number of devices in the environment, or RuntimeError where another device has
    taken PrivateUse1, of which a process has one.
    """
    if _compat.has_backend(BACKEND_NAME):
        return
    _register_device()
    _register_process_group_backend()


def _register_device() -> None:
    taken_by = _compat.privateuse1_name()
    if taken_by not in {"privateuseone", DEVICE_TYPE}:
        raise RuntimeError(
            f"the device {taken_by!r} is registered as PrivateUse1, of which a process has only one: "
            f"use {DEVICE_TYPE} in a process that does not import it"
        )
    from . import device  # noqa: PLC0415 - only what is registered needs the extension
    from .extension import extension  # noqa: PLC0415

    extension().set_device_count(device_count())
    if taken_by != DEVICE_TYPE:
        backend_registration.rename_privateuse1_backend(DEVICE_TYPE)
        _compat.register_device_module(DEVICE_TYPE, device)
        backend_registration.generate_methods_for_privateuse1_backend()


def _register_process_group_backend() -> None:
    from . import process_group  # noqa: PLC0415 - as above
    from .extension import extension  # noqa: PLC0415

    extension().set_gloo_factory(process_group.make_gloo)
    # As a list: torch 2.11 to 2.13 take the letters of a string for devices.
    dist.Backend.register_backend(
        BACKEND_NAME, process_group.create, extended_api=True, devices=[DEVICE_TYPE]
    )
