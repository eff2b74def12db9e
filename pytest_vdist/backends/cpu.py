"""The CPU with gloo, which is built into every torch. Any number of ranks share the machine."""

from __future__ import annotations

import os
from importlib import metadata

from pytest_vdist.backends.base import Availability, DeviceBackend

# gloo has no int16, uint16 or float8 and adds bools as bytes, so that True + True holds no valid bool.
_REDUCTION_DTYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int8", "uint8")
# As gloo of torch 2.11 to 2.15 says itself, in its errors.
_GROUP_LIMITS = {
    "all_to_all": "gloo of torch 2.11 has no alltoall of lists; later ones have it, for equal parts",
    "all_gather:unequal": "gloo gathers tensors of one size",
    "all_gather_into_tensor:stacked": "gloo joins along dimension 0, and wants the shape of that",
    "reduce_scatter_tensor:stacked": "gloo cuts along dimension 0, and wants the shape of that",
    "get_future:reduce_scatter": "gloo's handles of reduce-scatters have no future",
    "get_future:reduce_scatter_tensor": "gloo's handles of reduce-scatters have no future",
}


def _probe() -> Availability:
    import torch.distributed as dist  # noqa: PLC0415 - an unused plugin must not import torch

    has_gloo = dist.is_available() and dist.is_gloo_available()
    return Availability(
        device_count=(os.cpu_count() or 1) if has_gloo else 0,
        looked_for="gloo in this torch (torch.distributed.is_gloo_available())",
        remedy="install a torch that is built with USE_DISTRIBUTED=1 and USE_GLOO=1",
    )


def _library_version() -> str:
    return f"gloo of torch {metadata.version('torch')}"


BACKEND = DeviceBackend(
    name="cpu",
    device_type="cpu",
    process_group_backend="gloo",
    probe=_probe,
    library_version=_library_version,
    reduction_dtypes=_REDUCTION_DTYPES,
    movement_dtypes=(*_REDUCTION_DTYPES, "bool"),
    shares_device=True,
    process_group_limits=_GROUP_LIMITS,
)
