"""What certification asks real ranks: which object moves their data, and how it adds."""

from __future__ import annotations

import contextlib
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pytest_vdist.judge import SumProbe
from pytest_vdist.ranks import _compat
from pytest_vdist.ranks.world import current_world

if TYPE_CHECKING:
    from pytest_vdist.implementations.protocol import Coordinator


def proof(group: Coordinator) -> dict[str, Any]:
    """Make a few calls, and return which objects did them and how their counters of operations moved."""
    before = current_world().calls()
    total = group.all_reduce(torch.full((4,), float(group.rank_in_group + 1), device=group.device))
    parts = group.all_gather(torch.tensor([float(group.rank)], device=group.device))
    group.barrier()
    moved = {name: count - before.get(name, 0) for name, count in current_world().calls().items()}
    return {
        "coordinator": _class_name(group),
        "communicator": _communicator(group),
        "process_group": _backend_of(getattr(group, "device_group", None), group.device),
        "cpu_process_group": _backend_of(getattr(group, "cpu_group", None), torch.device("cpu")),
        "operations": {name: count for name, count in moved.items() if count},
        "sum": total.cpu().tolist(),
        "gathered": parts.cpu().tolist(),
        "device": str(group.device),
        "device_name": device_name(group.device),
    }


def totals(group: Coordinator, probes: list[SumProbe]) -> list[tuple[torch.Tensor, bool]]:
    """Return for each probe the sum that this rank got, and whether a second call gave the same bits."""
    found = []
    for probe in probes:
        ours = probe.input(group.rank_in_group).to(group.device)
        first, second = group.all_reduce(ours).cpu(), group.all_reduce(ours).cpu()
        found.append((first, torch.equal(first.view(torch.uint8), second.view(torch.uint8))))
    return found


def device_name(device: torch.device) -> str:
    """Return the product name of the device, as its module of torch tells it, or its type."""
    if device.type == "cpu":
        return _cpu_name()
    module = getattr(torch, device.type, None)
    name = getattr(module, "get_device_name", None)
    return str(name(device)) if callable(name) else device.type


def _cpu_name() -> str:
    """Return the model that Linux names, or the architecture."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def _class_name(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _communicator(group: Coordinator) -> str | None:
    """Return the class of what a coordinator of the field's kind has for its device."""
    for name in ("device_communicator", "communicator"):
        found = getattr(group, name, None)
        if found is not None:
            return _class_name(found)
    return None


def _backend_of(group: object, device: torch.device) -> str | None:
    if not isinstance(group, torch.distributed.ProcessGroup):
        return None
    return _compat.concrete_backend(group, device)
