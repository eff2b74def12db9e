"""NVIDIA GPUs with NCCL; also AMD GPUs, whose torch builds call the device cuda and RCCL nccl."""

from __future__ import annotations

from collections.abc import Callable

from pytest_vdist.backends.accelerator import probe_accelerator
from pytest_vdist.backends.base import Availability, DeviceBackend

_REDUCTION_DTYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int8", "uint8")

# NCCL's watchdog ends a rank whose operation has timed out, but waits first for a dump of torch's flight
# recorder, four times this long and a minute by default. The ranks' own ledger says more, and at once.
_RANK_ENVIRONMENT = {"TORCH_NCCL_DUMP_ON_TIMEOUT": "0", "TORCH_NCCL_WAIT_TIMEOUT_DUMP_MILSEC": "100"}
# NCCL refuses two ranks of one host on one GPU, and takes ranks with different host ids for ones of different
# hosts (2.28.9; https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/env.html#nccl-hostid). They then
# talk by sockets, of the loopback: what a machine has of networks must not decide how ranks share a GPU.
_SHARING_ENVIRONMENT = {
    "NCCL_HOSTID": "vdist-node-{node}",
    "NCCL_NET": "Socket",
    "NCCL_SOCKET_IFNAME": "lo",
}
# torch maps its reductions to NCCL's, of which none is bitwise, and refuses these by a ValueError.
_GROUP_LIMITS = dict.fromkeys(("band", "bor", "bxor"), "NCCL has no bitwise reductions")


def _probe() -> Availability:
    return probe_accelerator(
        "cuda",
        "nccl",
        remedy="install a CUDA or ROCm build of torch (https://pytorch.org/get-started/locally/) "
        "and the driver of the GPU",
    )


def _library_version() -> str:
    import torch  # noqa: PLC0415 - an unused plugin must not import torch

    version: Callable[[], tuple[int, ...]] = torch.cuda.nccl.version
    return "nccl " + ".".join(str(part) for part in version())


BACKEND = DeviceBackend(
    name="cuda",
    device_type="cuda",
    process_group_backend="nccl",
    probe=_probe,
    library_version=_library_version,
    reduction_dtypes=_REDUCTION_DTYPES,
    movement_dtypes=(*_REDUCTION_DTYPES, "bool", "float8_e4m3fn", "float8_e5m2"),
    rank_environment=_RANK_ENVIRONMENT,
    process_group_limits=_GROUP_LIMITS,
    visible_devices_variable="CUDA_VISIBLE_DEVICES",
    sharing_environment=_SHARING_ENVIRONMENT,
)
