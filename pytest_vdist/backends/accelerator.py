"""The generic path for devices that torch drives through a device module such as torch.cuda."""

from __future__ import annotations

from pytest_vdist.backends.base import Availability


def probe_accelerator(device_type: str, process_group_backend: str, *, remedy: str) -> Availability:
    """Ask torch for devices of a type and for their process-group backend; both must be there.

    Initialises the device's driver where there is one, so it must not run in a process that forks ranks.
    """
    import torch  # noqa: PLC0415 - an unused plugin must not import torch
    import torch.distributed as dist  # noqa: PLC0415

    module = getattr(torch, device_type, None)
    devices = module.device_count() if module is not None and module.is_available() else 0
    has_backend = dist.is_available() and dist.is_backend_available(process_group_backend)
    looked_for = (
        f"devices by torch.{device_type}.device_count(), found {devices}, and the process-group backend "
        f"{process_group_backend} in torch {torch.__version__}, {'found' if has_backend else 'not built in'}"
    )
    return Availability(devices if has_backend else 0, looked_for, remedy)
