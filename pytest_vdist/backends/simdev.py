"""The simulated accelerator with simccl, registered by the entry point that a vendor's device uses."""

from __future__ import annotations

import os
from importlib import metadata

from pytest_vdist.backends.base import Availability, DeviceBackend

_REDUCTION_DTYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int8", "uint8")
# Its data goes over gloo, whose gathers are of tensors of one size.
_GROUP_LIMITS = {"all_gather:unequal": "simccl gathers tensors of one size"}


def _probe() -> Availability:
    """Build the extension before ranks need it, and count devices without making torch know them here."""
    import torch.distributed as dist  # noqa: PLC0415 - an unused plugin must not import torch

    from pytest_vdist.reference_impl.simdev import BuildError, build_extension, device_count  # noqa: PLC0415

    if not (dist.is_available() and dist.is_gloo_available()):
        return Availability(
            0,
            "gloo in this torch (torch.distributed.is_gloo_available())",
            "install a torch that is built with USE_DISTRIBUTED=1 and USE_GLOO=1",
        )
    try:
        build_extension()
    except BuildError as error:
        return Availability(0, f"its C++ extension, which cannot be built: {error.problem}", error.remedy)
    return Availability(
        device_count(),
        f"the number of simulated devices, SIMDEV_COUNT={os.environ.get('SIMDEV_COUNT', '8')}",
        "set SIMDEV_COUNT to 1 or more",
    )


def _library_version() -> str:
    return f"simccl over gloo of torch {metadata.version('torch')}"


BACKEND = DeviceBackend(
    name="simdev",
    device_type="simdev",
    process_group_backend="simccl",
    probe=_probe,
    library_version=_library_version,
    reduction_dtypes=_REDUCTION_DTYPES,
    movement_dtypes=(*_REDUCTION_DTYPES, "bool", "int16", "float8_e4m3fn", "float8_e5m2"),
    process_group_limits=_GROUP_LIMITS,
    visible_devices_variable="SIMDEV_VISIBLE_DEVICES",
    rank_setup="pytest_vdist.reference_impl.simdev:register",
    sharing_environment={},
)
