"""Subgroups by `torch.distributed.split_group`: made from the communicators of the default process group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from . import _compat
from .new_groups import CPU_BACKEND
from .platform import torch_device_type

WAY_OUT = (
    "make subgroups by new_group instead (split_group=False, or VDIST_DISTRIBUTED_USE_SPLIT_GROUP=0 in the "
    "environment)"
)
_CPU = torch.device("cpu")


def torch_obstacle(device_type: str) -> str | None:
    """Say why this torch cannot split groups on devices of that type, and the way out; None if it can.

    Whether the process-group backend of the device can split shows only once there is a default process
    group. For the CPU, torch is asked by a trial with a group of one rank, unless there is such a group. A
    vendor's device may be unknown to torch in a process that is no rank; then nothing speaks against it.
    """
    reason = _reason_against(device_type)
    if reason is None:
        return None
    return f"split_group of torch {torch.__version__} does not work on {device_type!r}: {reason}; {WAY_OUT}"


def require_torch(device_type: str) -> None:
    """Raise RuntimeError where this torch cannot split groups on devices of that type."""
    obstacle = torch_obstacle(device_type)
    if obstacle is not None:
        raise RuntimeError(obstacle)


def default_backend(device_type: str, backend: str | None) -> str:
    """Return the backend of a default process group that can be split: one for the CPU, one for the device.

    `backend` names that of the device, None leaves it to torch. One that says more ("cpu:gloo,cuda:nccl") is
    returned as it is.
    """
    if backend is not None and ":" in backend:
        return backend
    name = backend or dist.get_default_backend_for_device(device_type)
    return f"cpu:{name}" if device_type == "cpu" else f"cpu:{CPU_BACKEND},{device_type}:{name}"


def bound_device(device: torch.device) -> torch.device | None:
    """Return the `device_id` of a default process group that can be split. torch has none for the CPU."""
    return None if device.type == "cpu" else device


@dataclass(frozen=True)
class SplitGroups:
    """Splits the default process group, which every rank does with the same lists.

    `device` is this rank's. `backend` may name the backend that the default group has for it.
    """

    device: torch.device
    backend: str | None

    def obstacle(self) -> str | None:
        """Say what keeps torch from splitting the present default process group, and the way out."""
        obstacle = torch_obstacle(self.device.type)
        if obstacle is not None:
            return obstacle
        reason = self._reason_against_group(dist.group.WORLD)
        if reason is None:
            return None
        name = dist.get_default_backend_for_device(self.device.type)
        device_id = "" if self.device.type == "cpu" else f", device_id=torch.device({str(self.device)!r})"
        return (
            f"the default process group cannot be split: {reason}; make it by torch.distributed."
            f"init_process_group({default_backend(self.device.type, name)!r}{device_id}), or {WAY_OUT}"
        )

    def device_group(
        self, partition: Sequence[Sequence[int]], timeout: timedelta | None, description: str, key: str
    ) -> dist.ProcessGroup | None:
        """Split off device groups for all lists and return that of this rank; None on a rank in no list."""
        keep, parent = None, self._parent()
        if self.device.type != "cpu" and _compat.can_split_off(parent, self.device):
            keep = f"{self.device.type}:{_compat.configured_backends(parent)[self.device.type]}"
        return self._split(partition, timeout, description, key, keep)

    def cpu_group(
        self, partition: Sequence[Sequence[int]], timeout: timedelta | None, description: str, key: str
    ) -> dist.ProcessGroup | None:
        """Split off groups with a backend for the CPU for all lists and return that of this rank.

        None on a rank in no list. torch splits a device's backend in any case, so the group has that as well.
        """
        group = self._split(partition, timeout, description, key, None)
        if group is not None:
            _compat.unbind(group)
        return group

    def _split(
        self,
        partition: Sequence[Sequence[int]],
        timeout: timedelta | None,
        description: str,
        key: str,
        keep: str | None,
    ) -> dist.ProcessGroup | None:
        try:
            group = _compat.split_group(
                self._parent(),
                [sorted(ranks) for ranks in partition],
                timeout=timeout,
                description=description,
                name=key,
                backend=keep,
            )
        except (AttributeError, RuntimeError, TypeError, ValueError) as error:
            # torch leaves it to Python to find out what a vendor's backend lacks.
            raise RuntimeError(
                f"torch {torch.__version__} refused to split the default process group into "
                f"{[list(ranks) for ranks in partition]} for {description!r}: {error}; {WAY_OUT}"
            ) from error
        if group is not None and timeout is not None:
            # Up to torch 2.13 the CPU's backend takes over options of the device's, and with them no timeout.
            _compat.set_timeout(group, timeout)
        return group

    def _parent(self) -> dist.ProcessGroup:
        parent = dist.group.WORLD
        assert parent is not None, "create_subgroups has made sure"
        _compat.prepare_to_split(parent, self.device)
        return parent

    def _reason_against_group(self, group: dist.ProcessGroup | None) -> str | None:
        if group is None:
            return "there is none"
        bound = _compat.bound_device(group)
        if self.device.type != "cpu" and bound != self.device:
            return (
                f"it was made without device_id, and this rank's device is {self.device}"
                if bound is None
                else f"it is bound to {bound} by its device_id, and this rank's device is {self.device}"
            )
        on_cpu, on_device = (_compat.backend_name(group, place) for place in (_CPU, self.device))
        if on_cpu != CPU_BACKEND:
            has = "none" if on_cpu is None else repr(on_cpu)
            return f"it needs the backend {CPU_BACKEND!r} for the CPU and has {has}"
        if on_device is None:
            return f"it has no backend for {self.device.type!r}"
        if not _compat.supports_splitting(group, self.device):
            return f"its backend {on_device!r} for {self.device.type!r} does not support splitting"
        return self._reason_against_name(group)

    def _reason_against_name(self, group: dist.ProcessGroup) -> str | None:
        own = _compat.configured_backends(group).get(self.device.type)
        if self.backend in {None, own, f"{self.device.type}:{own}", dist.get_backend_config(group)}:
            return None
        return f"its backend for {self.device.type!r} is {own!r}, and {self.backend!r} was asked for"


def _reason_against(device_type: str) -> str | None:
    if not _compat.split_group_takes_backend():
        if device_type == "cuda":
            return None
        return "it splits CUDA groups only; torch 2.13 is the first whose split_group takes a backend"
    if device_type == "cpu":
        error = _compat.trial_of_splitting_on_cpu()
        return error and f"{error} (torch 2.15 is the first that splits groups without an accelerator)"
    accelerator = torch_device_type()
    if accelerator not in {"cpu", device_type}:
        return f"it splits the groups of torch's accelerator, which is {accelerator!r} here"
    return None
