"""Intel GPUs with XCCL (oneCCL)."""

from __future__ import annotations

from importlib import metadata

from pytest_vdist.backends.accelerator import probe_accelerator
from pytest_vdist.backends.base import Availability, DeviceBackend

_REDUCTION_DTYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int8", "uint8")
# torch maps its reductions to oneCCL's, and refuses by a ValueError what that has not.
_GROUP_LIMITS = {
    **dict.fromkeys(("band", "bor", "bxor"), "oneCCL has no bitwise reductions"),
    "avg": "older releases of oneCCL have no average",
}


def _probe() -> Availability:
    return probe_accelerator(
        "xpu",
        "xccl",
        remedy="install the XPU build of torch (https://pytorch.org/docs/stable/notes/get_start_xpu.html) "
        "and the driver of the GPU",
    )


def _library_version() -> str:
    # torch offers no call that tells the version of oneCCL; its XPU builds require the package oneccl.
    try:
        return f"oneccl {metadata.version('oneccl')}"
    except metadata.PackageNotFoundError:
        return "oneccl of unknown version (the package oneccl is not installed)"


BACKEND = DeviceBackend(
    name="xpu",
    device_type="xpu",
    process_group_backend="xccl",
    probe=_probe,
    library_version=_library_version,
    reduction_dtypes=_REDUCTION_DTYPES,
    movement_dtypes=(*_REDUCTION_DTYPES, "bool"),
    start_method="spawn",
    process_group_limits=_GROUP_LIMITS,
    visible_devices_variable="ZE_AFFINITY_MASK",
)
