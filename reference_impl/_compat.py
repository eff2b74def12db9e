"""What differs between the supported versions of torch, asked of torch and not of its version."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d

# torch 2.13 renamed these functions, and warns on the old names, and the methods behind them.
_all_gather: Any = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter: Any = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
_renamed = hasattr(dist.ProcessGroup, "all_gather_single")
_ALL_GATHER, _REDUCE_SCATTER = (
    ("all_gather_single", "reduce_scatter_single")
    if _renamed
    else ("_allgather_base", "_reduce_scatter_base")
)

# The collectives that are called most go to the process group's own methods, with which torch's functions of
# the same names end (torch 2.11 to 2.15). Those look at their arguments and at their surroundings first, in
# Python, which takes a third of the time of a short sum up to where the backend has it. Compilers know the
# functions alone, and make nodes of their own of them.


def all_reduce(tensor: torch.Tensor, group: dist.ProcessGroup) -> None:
    """Sum a real tensor over the group, in place, as `dist.all_reduce` does."""
    if torch.compiler.is_compiling():
        dist.all_reduce(tensor, group=group)
        return
    _finish(group.allreduce([tensor], _SUM))


def all_gather_flat(output: torch.Tensor, input_: torch.Tensor, group: dist.ProcessGroup) -> None:
    """Fill `output`, 1-D of world size times `input_.numel()`, with every rank's 1-D `input_`."""
    if torch.compiler.is_compiling():
        _all_gather(output, input_, group=group)
        return
    _finish(getattr(group, _ALL_GATHER)(output, input_, _GATHER))


def reduce_scatter_flat(output: torch.Tensor, input_: torch.Tensor, group: dist.ProcessGroup) -> None:
    """Sum every rank's 1-D `input_` and fill `output` with this rank's equal part of the sum."""
    if torch.compiler.is_compiling():
        _reduce_scatter(output, input_, op=dist.ReduceOp.SUM, group=group)
        return
    _finish(getattr(group, _REDUCE_SCATTER)(output, input_, _SCATTER))


def broadcast(tensor: torch.Tensor, src: int, group: dist.ProcessGroup) -> None:
    """Overwrite a contiguous tensor with that of `src`, a rank as torch counts them in the group."""
    if torch.compiler.is_compiling():
        dist.broadcast(tensor, group_src=src, group=group)
        return
    _finish(group.broadcast([tensor], _from(src)))


def _finish(work: dist.Work | None) -> None:
    if work is not None:
        work.wait()


def _synchronous(options: Any) -> Any:
    options.asyncOp = False
    return options


@functools.cache
def _from(src: int) -> Any:
    options = _synchronous(dist.BroadcastOptions())
    options.rootRank, options.rootTensor = src, 0
    return options


_SUM = _synchronous(dist.AllreduceOptions())
_GATHER = _synchronous(distributed_c10d.AllgatherOptions())  # type: ignore[attr-defined]
_SCATTER = _synchronous(dist.ReduceScatterOptions())


def connects_lazily(group: dist.ProcessGroup, device: torch.device) -> bool:
    """Tell whether the backend for `device` sets up connections in calls that all members make, as NCCL does.

    Those are the backends that take batches of messages as one (`supports_coalescing` of `_get_backend`,
    torch 2.1 and newer): https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.batch_isend_irecv
    """
    return bool(getattr(group._get_backend(device), "supports_coalescing", False))


def start_in_batch(
    operation: Callable[..., dist.Work | None], flat: torch.Tensor, peer: int, group: dist.ProcessGroup
) -> dist.Work | None:
    """Start a message in a batch of its own.

    As `dist.batch_isend_irecv` does, which torch 2.11 to 2.15 leave half done where `operation` raises: later
    sums in the group do nothing then. `_start_coalescing` and `_end_coalescing` are there since torch 2.1.
    """
    group._start_coalescing(flat.device)
    try:
        operation(flat, peer, group=group)
    finally:
        work: dist.Work | None = group._end_coalescing(flat.device)
    return work


def backend_name(group: dist.ProcessGroup, device: torch.device) -> str | None:
    """Name the backend that moves tensors of `device` in `group`; None where the group has none.

    `dist.get_backend` says "undefined" for a group that was made without a backend name, so the group is
    asked (`ProcessGroup._get_backend`, torch 2.0 and newer).
    """
    try:
        backend = group._get_backend(device)
    except RuntimeError:
        return None
    return str(backend.name())


def timeout_of(group: dist.ProcessGroup, device: torch.device) -> float:
    """Return the timeout, in seconds, of the backend that moves tensors of `device` in `group`.

    `_get_backend` (torch 2.0 and newer) is wrapped where TORCH_DISTRIBUTED_DEBUG=DETAIL; a backend without
    `_timeout` in its options has torch's default.
    """
    backend: Any = group._get_backend(device)
    options = getattr(getattr(backend, "wrapped_pg", backend), "options", None)
    timeout: timedelta = getattr(options, "_timeout", None) or dist.constants.default_pg_timeout
    return timeout.total_seconds()


def default_store() -> Any:
    """Return the store of the default process group (`_get_default_store`, torch 1.8 and newer)."""
    return distributed_c10d._get_default_store()


def begin_names_again() -> None:
    """Let torch name groups from the beginning, where the default group could not be made.

    torch 2.11 to 2.15 count groups in `_world.group_count`, which a failed `init_process_group` has raised.
    In the next one the ranks would meet under different names, and wait for each other.
    """
    if not dist.is_initialized():
        distributed_c10d._world.group_count = 0


@contextmanager
def unbound_default_group() -> Iterator[None]:
    """Let `new_group` make a CPU group beside a default group that is bound to a device.

    torch 2.11 to 2.13 look for the device's backend in every new group, and let the ranks outside a group
    split the device's communicator while its members, who need none, do not.
    """
    group = dist.group.WORLD
    bound = None if group is None else group.bound_device_id
    if group is None or bound is None:
        yield
        return
    group.bound_device_id = None
    try:
        yield
    finally:
        group.bound_device_id = bound


def split_group_takes_backend() -> bool:
    """Tell whether `split_group` can keep some of the parent's backends, as from torch 2.13 on."""
    return "backend" in inspect.signature(dist.split_group).parameters


def trial_of_splitting_on_cpu() -> str | None:
    """Return torch's refusal to split a gloo group of one rank; None where it does that.

    None as well where this process has a default process group already, so that nothing can be tried.
    """
    if dist.is_initialized():
        return None
    dist.init_process_group("cpu:gloo", store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
    try:
        dist.split_group(split_ranks=[[0]])
    except (RuntimeError, ValueError) as error:
        return str(error)
    finally:
        dist.destroy_process_group()
    return None


def split_group(
    parent: dist.ProcessGroup,
    partition: list[list[int]],
    *,
    timeout: timedelta | None,
    description: str,
    name: str,
    backend: str | None,
) -> dist.ProcessGroup | None:
    """Split `parent` and return the group of this rank; None on a rank in no list.

    `name` must be new on all ranks. Up to torch 2.13 a rank in no list gets None, later NON_GROUP_MEMBER.
    """
    keep = {} if backend is None else {"backend": backend}
    with _named(name):
        group = dist.split_group(parent, partition, timeout=timeout, group_desc=description, **keep)
    return group if isinstance(group, dist.ProcessGroup) else None


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Let `split_group` name the group after `name` and the first rank of its list.

    torch 2.11 to 2.13 hash the ranks and the number of groups that are alive on this rank. Ranks with
    different pasts get different names and wait for each other; a group that is made again after its
    destruction gets its old name and finds the old addresses in the store. `_process_group_name` has been
    there since torch 2.0; where `split_group` does not call it, this changes nothing.
    """
    original = distributed_c10d._process_group_name

    def process_group_name(ranks: list[int], use_hashed_name: bool) -> str:
        given = original(ranks, use_hashed_name)
        return f"{name}:{ranks[0]}" if use_hashed_name else str(given)

    distributed_c10d._process_group_name = process_group_name  # type: ignore[assignment]
    try:
        yield
    finally:
        distributed_c10d._process_group_name = original


def prepare_to_split(group: dist.ProcessGroup, device: torch.device) -> None:
    """Complete what torch up to 2.13 leaves out of a default process group and misses when it splits it.

    The default backend (`_set_default_backend`, torch 2.0 and newer), which alone can be split off: torch
    takes the device's in a group with NCCL, gloo in one with XCCL and none in one with a vendor's. And the
    ranks, without which the split of any but the first group of a process reads beyond an empty vector
    (https://github.com/pytorch/pytorch/pull/192109).
    """
    own = configured_backends(group).get(device.type, "")
    if group.name() in {"undefined", "gloo"} - {own}:
        kinds = dist.Backend.backend_type_map
        group._set_default_backend(kinds.get(own, dist.ProcessGroup.BackendType.CUSTOM))
    for device_type in configured_backends(group):
        options = getattr(group._get_backend(torch.device(device_type)), "options", None)
        if getattr(options, "global_ranks_in_group", None) == []:
            options.global_ranks_in_group = list(range(group.size()))  # type: ignore[union-attr]


def can_split_off(group: dist.ProcessGroup, device: torch.device) -> bool:
    """Tell whether `split_group` can keep the backend of `device` alone: it must be the group's default one.

    torch 2.13 names the default backend by its kind, so that every vendor's is called "custom".
    """
    own = configured_backends(group).get(device.type)
    return split_group_takes_backend() and group.name() in {own, "custom"}


def configured_backends(group: dist.ProcessGroup) -> dict[str, str]:
    """Return the names of the backends of `group` by device type, as torch registered them."""
    return dict(pair.split(":", 1) for pair in dist.get_backend_config(group).split(","))


def bound_device(group: dist.ProcessGroup) -> torch.device | None:
    """Return the `device_id` with which `group` was made (`bound_device_id`, torch 2.3 and newer)."""
    return group.bound_device_id


def unbind(group: dist.ProcessGroup) -> None:
    """Let barriers of `group` go over the CPU: torch sends those of a bound group over its device."""
    group.bound_device_id = None


def supports_splitting(group: dist.ProcessGroup, device: torch.device) -> bool:
    """Tell what the backend of `device` says of itself (`supports_splitting`, torch 2.3 and newer)."""
    return bool(getattr(group._get_backend(device), "supports_splitting", False))


def set_timeout(group: dist.ProcessGroup, timeout: timedelta) -> None:
    """Set the timeout of every backend of `group` that has another (`_set_default_timeout`, torch 2.2 on).

    torch's own `_set_pg_timeout` leaves vendors' backends alone up to 2.13.
    """
    for device_type in configured_backends(group):
        backend: Any = group._get_backend(torch.device(device_type))
        if getattr(getattr(backend, "options", None), "_timeout", None) != timeout:
            backend._set_default_timeout(timeout)


def has_symmetric_memory() -> bool:
    """Tell whether torch has the kernel that `SymmetricMemory` uses (torch 2.8 and newer)."""
    return hasattr(torch.ops.symm_mem, "one_shot_all_reduce_copy")


class SymmetricMemory:
    """Memory of every rank of a group, mapped by all of them (`_symmetric_memory`, torch 2.6 and newer).

    torch documents it as a prototype. Making it is a collective of the group. Raises RuntimeError where the
    devices cannot map each other's memory.
    """

    @torch.inference_mode(mode=False)  # memory that is kept is also written to outside of that mode
    def __init__(self, size: int, device: torch.device, group: dist.ProcessGroup) -> None:
        from torch.distributed import _symmetric_memory  # noqa: PLC0415 - it imports half of torch's compiler

        self._bytes = _symmetric_memory.empty(size, dtype=torch.uint8, device=device)
        self._handle: Any = _symmetric_memory.rendezvous(self._bytes, group.group_name)
        self._group_name = group.group_name

    def meet(self, milliseconds: int) -> None:
        """Let the device wait until those of all ranks have come here; at the limit its kernel traps."""
        self._handle.barrier(0, milliseconds)

    def sum_of(self, flat: torch.Tensor) -> torch.Tensor:
        """Return the sum of every rank's 1-D contiguous tensor, which is copied into the memory first."""
        buffer = self._bytes.view(flat.dtype)[: flat.numel()]
        total: torch.Tensor = torch.ops.symm_mem.one_shot_all_reduce_copy(
            buffer, flat, "sum", self._group_name
        )
        return total
