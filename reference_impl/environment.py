"""The world of this process: default process group, device, and the coordinator of all ranks."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from . import _compat, envs, names, split_groups
from .coordinator import GroupCoordinator
from .platform import local_device, resolve_device_type, select_device, torch_device_type


class _State:
    world: GroupCoordinator | None = None
    made_default_group = False


_state = _State()


def init_distributed_environment(  # noqa: PLR0917 - the order of arguments of vLLM's function
    world_size: int = -1,
    rank: int = -1,
    distributed_init_method: str = "env://",
    local_rank: int = -1,
    backend: str | None = None,
    timeout: float | timedelta | None = None,
    cpu_timeout: float | timedelta | None = None,
    device_type: str | None = None,
    split_group: bool | None = None,
) -> None:
    """Make the default process group, or take over the one that a launcher made, and the world's coordinator.

    -1 takes RANK, WORLD_SIZE and LOCAL_RANK from the environment (without LOCAL_RANK the rank counts).
    `backend` None lets torch pick by device; `device_type` None takes torch's accelerator, or the CPU.
    Timeouts are in seconds; None takes VDIST_DISTRIBUTED_TIMEOUT_SECONDS and
    VDIST_CPU_DISTRIBUTED_TIMEOUT_SECONDS, and without them the backend's own. The device is made the current
    one. `split_group` says whether subgroups are split off the default process group, which then has a
    backend for the CPU as well and is bound to the device; None takes VDIST_DISTRIBUTED_USE_SPLIT_GROUP.
    A second call with the same size and rank does nothing.

    Raises ValueError for wrong or missing settings, RuntimeError where a world of another size or rank
    exists, where torch or the launcher's default process group cannot be split, and where the other ranks do
    not come within `timeout`.
    """
    if _state.world is not None:
        _require_same_world(
            world_size, rank, "the environment is initialised", "destroy_distributed_environment()"
        )
        return
    device_timeout = envs.as_timeout(timeout, "timeout") or envs.distributed_timeout()
    host_timeout = envs.as_timeout(cpu_timeout, "cpu_timeout") or envs.cpu_distributed_timeout()
    if dist.is_initialized():
        _require_same_world(
            world_size,
            rank,
            "the launcher made a default process group",
            "torch.distributed.destroy_process_group()",
        )
        world_size, rank = dist.get_world_size(), dist.get_rank()
    else:
        world_size = _setting(world_size, "WORLD_SIZE", "world_size", distributed_init_method)
        rank = _setting(rank, "RANK", "rank", distributed_init_method)
        _validate_rank(rank, world_size)
    device_type = resolve_device_type(device_type)
    if split_group is None:
        split_group = envs.use_split_group()
    if split_group:
        split_groups.require_torch(device_type)
    if local_rank < 0:
        local_rank = rank if "LOCAL_RANK" not in os.environ else _environment_number("LOCAL_RANK")
    device = local_device(device_type, local_rank)
    select_device(device)
    made_default_group = not dist.is_initialized()
    if made_default_group:
        settings = _backend_settings(device, backend, split_group=split_group)
        _make_default_group(distributed_init_method, device_timeout, world_size, rank, settings)
    try:
        _state.world = GroupCoordinator(
            [list(range(world_size))],
            local_rank,
            group_name="world",
            timeout=device_timeout,
            cpu_timeout=host_timeout,
            device_type=device_type,
            split_group=split_group,
            connect=False,  # for that NCCL takes 0.3 s and 0.9 GiB, and few programs use it on the device
        )
    except BaseException:
        if made_default_group:
            dist.destroy_process_group()
        raise
    _state.made_default_group = made_default_group


def get_world_group() -> GroupCoordinator:
    """Return the coordinator of all ranks. Raises RuntimeError before `init_distributed_environment`."""
    if _state.world is None:
        raise RuntimeError("the world group does not exist: call init_distributed_environment() first")
    return _state.world


def distributed_environment_is_initialized() -> bool:
    return _state.world is not None


def create_group(
    group_ranks: Sequence[Sequence[int]], group_name: str | None = None, **options: Any
) -> GroupCoordinator:
    """Make a coordinator on the world's device, with its timeouts and its way of making groups.

    `options` go to `GroupCoordinator`.
    """
    world = get_world_group()
    inherited = {
        "local_rank": world.local_rank,
        "timeout": world.timeout,
        "cpu_timeout": world.cpu_timeout,
        "device_type": world.device.type,
        "split_group": world.split_group,
    }
    return GroupCoordinator(group_ranks, group_name=group_name, **(inherited | options))


def destroy_groups(groups: Sequence[names.Group]) -> None:
    """Destroy groups at the same time. Raises, when all have ended, what the first that failed has raised.

    NCCL waits up to half a second for a thread of each communicator and does nothing meanwhile
    (`ncclProxyServiceUDS`, https://github.com/NVIDIA/nccl/blob/v2.28.9-1/src/proxy.cc).
    """
    errors: list[BaseException] = []

    def destroy(group: names.Group) -> None:
        try:
            select_device(group.device)  # a new thread begins on device 0, and would leave a context there
            group.destroy()
        except BaseException as error:
            errors.append(error)

    threads = []
    for group in groups:
        thread = threading.Thread(target=destroy, args=(group,))
        try:
            thread.start()
        except RuntimeError:  # a function of atexit starts no thread from Python 3.12 on
            destroy(group)
        else:
            threads.append(thread)
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def destroy_distributed_environment() -> None:
    """Destroy every living coordinator, and the default process group unless a launcher made it.

    Afterwards the process can initialise again. Without an environment it does nothing.
    """
    destroy_groups(names.living())
    names.reset()
    if _state.made_default_group and dist.is_initialized():
        dist.destroy_process_group()
    _state.world, _state.made_default_group = None, False


def _make_default_group(
    init_method: str, timeout: timedelta | None, world_size: int, rank: int, settings: Mapping[str, Any]
) -> None:
    try:
        dist.init_process_group(
            init_method=init_method, timeout=timeout, world_size=world_size, rank=rank, **settings
        )
    except BaseException as error:
        _compat.begin_names_again()
        if not isinstance(error, RuntimeError):
            raise
        limit = "the backend's own limit" if timeout is None else f"{timeout.total_seconds():g} s"
        raise RuntimeError(
            f"init_process_group failed on rank {rank} of {world_size}, limit {limit} (timeout): {error}; "
            f"make sure that all ranks start and that each can reach {init_method!r}"
        ) from error


def _backend_settings(device: torch.device, backend: str | None, *, split_group: bool) -> dict[str, Any]:
    if not split_group:
        return {"backend": backend or _backend_for(device.type)}
    return {
        "backend": split_groups.default_backend(device.type, backend),
        "device_id": split_groups.bound_device(device),
    }


def _backend_for(device_type: str) -> str | None:
    """Leave the choice to torch, unless it would pick for another device than the one asked for."""
    if device_type == torch_device_type():
        return None
    return f"{device_type}:{dist.get_default_backend_for_device(device_type)}"


def _setting(value: int, variable: str, argument: str, init_method: str) -> int:
    if value >= 0:
        return value
    if variable not in os.environ:
        raise ValueError(
            f"{argument}={value} with init method {init_method!r}, and the environment has no {variable}: "
            f"pass {argument}, or start with torchrun, which sets it"
        )
    return _environment_number(variable)


def _environment_number(variable: str) -> int:
    text = os.environ[variable]
    if not text.isdecimal():
        raise ValueError(f"environment variable {variable}={text!r} is not a number of 0 or more")
    return int(text)


def _validate_rank(rank: int, world_size: int) -> None:
    if not 0 <= rank < world_size:
        raise ValueError(
            f"rank={rank} is not in a world of {world_size} ranks: ranks are 0 to {world_size - 1}"
        )


def _require_same_world(world_size: int, rank: int, situation: str, way_out: str) -> None:
    if not dist.is_initialized():
        raise RuntimeError(f"{situation}, but its default process group is gone: call {way_out} first")
    actual_size, actual_rank = dist.get_world_size(), dist.get_rank()
    if world_size not in (-1, actual_size) or rank not in (-1, actual_rank):
        raise RuntimeError(
            f"{situation} as rank {actual_rank} of {actual_size}, and world_size={world_size}, rank={rank} "
            f"was asked for: pass these values or -1, or call {way_out} first"
        )
