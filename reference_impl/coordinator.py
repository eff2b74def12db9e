"""One rank's view of one group: its place in it, and every operation that the group's ranks do together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from . import names, objects
from .arguments import Arguments
from .checked_collectives import CheckedCollectives
from .communicators.protocol import Communicator
from .communicators.single import SingleRankCommunicator
from .custom_ops import Operators
from .envs import as_timeout, use_split_group
from .failures import GroupScope, Setting, limited_by
from .handles import Handle, isend_object
from .ordered_group import OrderedGroup
from .platform import communicator_class, local_device, resolve_device_type
from .subgroups import GroupPlan, Subgroups, create_sibling, create_subgroups
from .tensor_dict import Postprocess, Slicing, TensorDict, TensorDictChannel
from .wire import REDUCTION_DTYPES


class GroupCoordinator:
    """The operations of one group.

    All `src` and `dst` are ranks within the group, in the order in which `group_ranks` lists them, and
    results follow that order. Arguments are checked on every rank before any traffic. Results are fresh
    contiguous tensors that share memory with no input; only `broadcast` works in place. Device operations
    obey `timeout`; objects, metadata, CPU tensors of tensor dicts and `barrier` obey `cpu_timeout`. After
    `destroy` every operation raises RuntimeError. One that cannot finish raises CommunicationError, at its
    limit CommunicationTimeoutError, which name operation, group, rank and limit. It lives until `destroy`, of
    itself or of the environment, also where nobody refers to it.
    """

    def __init__(  # noqa: PLR0917 - the order of arguments of vLLM's GroupCoordinator
        self,
        group_ranks: Sequence[Sequence[int]],
        local_rank: int,
        torch_distributed_backend: str | None = None,
        use_device_communicator: bool = True,
        group_name: str | None = None,
        timeout: float | timedelta | None = None,
        cpu_timeout: float | timedelta | None = None,
        device_type: str | None = None,
        split_group: bool | None = None,
        use_custom_ops: bool = True,
        connect: bool = True,
    ) -> None:
        """Make the groups of all lists in `group_ranks` (global ranks) and take part in that of this rank.

        Every rank of the world calls it with the same arguments but for `local_rank`, and makes its
        coordinators in the same order. Timeouts are in seconds; None keeps the backend's own, as it does for
        the backend and the device type, which torch picks. `split_group` says whether the groups are split
        off the default process group; None takes VDIST_DISTRIBUTED_USE_SPLIT_GROUP. In compiled code
        collectives are the operators of `custom_ops`; without `use_custom_ops` the compiler looks into them
        and makes its own of torch's. Without `connect` the first message between two ranks may wait, in
        isend too, until both are in their calls. Raises ValueError for wrong arguments, on all ranks where
        their `group_ranks` differ, and on a rank that is in no group; RuntimeError, on all ranks, where the
        default process group cannot be split; CommunicationError where a member does not make the groups too.
        """
        self.timeout = as_timeout(timeout, "timeout")
        self.cpu_timeout = as_timeout(cpu_timeout, "cpu_timeout")
        self.torch_distributed_backend = torch_distributed_backend
        self.group_ranks = [list(ranks) for ranks in group_ranks]
        self.local_rank = local_rank
        self.device = local_device(resolve_device_type(device_type), local_rank)
        self.device_index = self.device.index
        self.unique_name = names.next_name(group_name or "anonymous")
        self._plan = GroupPlan(
            self.unique_name,
            self.group_ranks,
            self.device,
            torch_distributed_backend,
            self.timeout,
            self.cpu_timeout,
            use_split_group() if split_group is None else split_group,
            connect,
        )
        self._subgroups: Subgroups | None = create_subgroups(self._plan)
        self.ranks = self._subgroups.ranks
        self.rank = dist.get_rank()
        self.world_size = len(self.ranks)
        self.rank_in_group = self.ranks.index(self.rank)
        self.use_custom_ops = use_custom_ops
        self._operators = Operators(self.unique_name, self.world_size, self.rank_in_group)
        self._arguments = Arguments(self.unique_name, self.world_size, self.rank_in_group, self.device)
        # Up to torch 2.13 messages in gloo groups that were split off know of no timeout but half an hour.
        self._cpu = OrderedGroup(
            self._subgroups.cpu_group, self.ranks, self.cpu_timeout, self.scope("cpu_timeout")
        )
        self._device_group = OrderedGroup(
            self._subgroups.device_group, self.ranks, scope=self.scope("timeout")
        )
        self._tensor_dicts = TensorDictChannel(self._cpu, self._device_group, self.device)
        self._communicator: Communicator | None = None
        self._checked_collectives: CheckedCollectives | None = None
        names.register(self)
        if use_device_communicator:
            self._communicator = self._make_communicator()
            self._tensor_dicts.attach(self._communicator)
            self._checked_collectives = CheckedCollectives(
                self._communicator, self._arguments, self._cpu, self.scope("cpu_timeout")
            )

    # ---- membership ----

    @property
    def first_rank(self) -> int:
        """Global rank of the group's first member."""
        return self.ranks[0]

    @property
    def last_rank(self) -> int:
        """Global rank of the group's last member."""
        return self.ranks[-1]

    @property
    def next_rank(self) -> int:
        """Global rank of the member after this one; the first comes after the last."""
        return self.ranks[self._next]

    @property
    def prev_rank(self) -> int:
        """Global rank of the member before this one; the last comes before the first."""
        return self.ranks[self._previous]

    @property
    def is_first_rank(self) -> bool:
        return self.rank == self.first_rank

    @property
    def is_last_rank(self) -> bool:
        return self.rank == self.last_rank

    @property
    def is_destroyed(self) -> bool:
        return self._subgroups is None

    def scope(self, setting: Setting) -> GroupScope:
        """Return what errors of an operation name that is governed by `setting`."""
        limit = self.timeout if setting == "timeout" else self.cpu_timeout
        return GroupScope(self.unique_name, self.rank, setting, limit)

    @property
    def split_group(self) -> bool:
        """Whether the process groups were split off the default one."""
        return self._plan.split

    @property
    def device_group(self) -> dist.ProcessGroup:
        """Process group of the device. Its own ranks are sorted, whatever the order of `ranks`."""
        return self._living().device_group

    @property
    def cpu_group(self) -> dist.ProcessGroup:
        """Process group of the CPU, over gloo. Its own ranks are sorted, whatever the order of `ranks`."""
        return self._living().cpu_group

    @property
    def device_communicator(self) -> Communicator | None:
        """The communicator of the device; None at world size 1 and where none was asked for."""
        self._living()
        return self._communicator if self.world_size > 1 else None

    # ---- collectives ----

    @limited_by("timeout")
    def all_reduce(self, input_: torch.Tensor) -> torch.Tensor:
        """Return the sum over the group; `input_` keeps its values.

        Raises TypeError, on all ranks, for a dtype that the communicator does not sum, such as bool.
        """
        if self._is_compiled():
            return self._operators.all_reduce(input_)
        return self._checked("all_reduce").all_reduce(input_)

    @limited_by("timeout")
    def all_gather(self, input_: torch.Tensor, dim: int = -1) -> torch.Tensor:
        """Return every rank's tensor, all of one shape, concatenated along `dim`."""
        if self._is_compiled():
            return self._operators.all_gather(input_, dim)
        return self._checked("all_gather").all_gather(input_, dim)

    @limited_by("timeout")
    def all_gatherv(
        self, input_: torch.Tensor | list[torch.Tensor], dim: int = 0, sizes: Sequence[int] | None = None
    ) -> torch.Tensor | list[torch.Tensor]:
        """Return every rank's tensor concatenated along `dim`, in which rank r's is `sizes[r]` long.

        `sizes` None: the ranks tell each other. A list of tensors gives a list. Raises ValueError, where
        `sizes` is None on all ranks, for tensors that differ in dtype or in another dimension.
        """
        if self._is_compiled():
            return self._operators.all_gatherv(input_, dim, sizes)
        return self._checked("all_gatherv").all_gatherv(input_, dim, sizes)

    @limited_by("timeout")
    def reduce_scatter(self, input_: torch.Tensor, dim: int = -1) -> torch.Tensor:
        """Return this rank's chunk of the sum, `input_.shape[dim] / world_size` long along `dim`.

        Raises ValueError, on all ranks, if that is not a whole number; TypeError as `all_reduce` does.
        """
        if self._is_compiled():
            return self._operators.reduce_scatter(input_, dim)
        return self._checked("reduce_scatter").reduce_scatter(input_, dim)

    @limited_by("timeout")
    def reduce_scatterv(
        self, input_: torch.Tensor, dim: int = -1, sizes: Sequence[int] | None = None
    ) -> torch.Tensor:
        """Return this rank's chunk of the sum: `sizes[rank_in_group]` long along `dim`, or equal chunks."""
        if self._is_compiled():
            return self._operators.reduce_scatterv(input_, dim, sizes)
        return self._checked("reduce_scatterv").reduce_scatterv(input_, dim, sizes)

    @limited_by("timeout")
    def reduce_scatterv_into_output(
        self, input_: torch.Tensor, output: torch.Tensor, dim: int = -1, sizes: Sequence[int] | None = None
    ) -> None:
        """Write what `reduce_scatterv` returns into `output`, of any strides.

        Raises ValueError if the shape or dtype of `output` does not fit.
        """
        if self._is_compiled():
            output.copy_(self._operators.reduce_scatterv(input_, dim, sizes))
            return
        checked = self._checked("reduce_scatterv_into_output")
        checked.reduce_scatterv_into_output(input_, output, dim, sizes)

    @limited_by("timeout")
    def gather(self, input_: torch.Tensor, dst: int = 0, dim: int = -1) -> torch.Tensor | None:
        """Return every rank's tensor, of one shape, concatenated along `dim`, at `dst`; None elsewhere."""
        return self._checked("gather").gather(input_, dst, dim)

    @limited_by("timeout")
    def broadcast(self, input_: torch.Tensor, src: int = 0) -> torch.Tensor:
        """Overwrite `input_`, of any strides, with that of `src`, and return it."""
        if self._is_compiled():
            return self._operators.broadcast(input_, src)
        self._living()
        self._arguments.rank(src, "src")
        self._arguments.tensor(input_, "broadcast")
        if self._communicator is not None:
            return self._communicator.broadcast(input_, src)
        self._device_group.broadcast_(input_, src)
        return input_

    @limited_by("cpu_timeout")
    def barrier(self) -> None:
        """Wait until every rank of the group has come here."""
        self._living()
        self._tensor_dicts.cpu_members.barrier()

    # ---- tensors between two ranks ----

    @limited_by("timeout")
    def send(self, tensor: torch.Tensor, dst: int | None = None) -> None:
        """Send a tensor to `dst`, by default the next rank, which receives it by `recv`."""
        communicator = self._checked("send").communicator
        dst = self._arguments.peer(self._next if dst is None else dst, "dst")
        communicator.send(self._arguments.tensor(tensor, "send"), dst)

    @limited_by("timeout")
    def recv(self, size: Sequence[int], dtype: torch.dtype, src: int | None = None) -> torch.Tensor:
        """Return a tensor of shape `size` from `src`, by default the previous rank, on the group's device."""
        communicator = self._checked("recv").communicator
        src = self._arguments.peer(self._previous if src is None else src, "src")
        return communicator.recv(size, dtype, src)

    # ---- objects ----

    @limited_by("cpu_timeout")
    def broadcast_object(self, obj: Any = None, src: int = 0) -> Any:
        """Return the object of `src`. Raises TypeError on all ranks if it does not pickle."""
        self._living()
        self._arguments.rank(src, "src")
        if self.world_size == 1:
            return obj
        return objects.broadcast_object(self._tensor_dicts.cpu_members, obj, src)

    @limited_by("cpu_timeout")
    def broadcast_object_list(self, obj_list: list[Any], src: int = 0) -> list[Any]:
        """Overwrite `obj_list` with that of `src`, and return it. Raises ValueError if its length differs."""
        received = self.broadcast_object(obj_list, src)
        if len(received) != len(obj_list):
            raise ValueError(
                f"broadcast_object_list of group {self.unique_name!r}: rank {src} sent {len(received)} "
                f"objects and this rank's list holds {len(obj_list)}: pass lists of one length"
            )
        obj_list[:] = received
        return obj_list

    @limited_by("cpu_timeout")
    def send_object(self, obj: Any, dst: int) -> None:
        """Send a picklable object. Raises TypeError, with nothing sent, for another."""
        self._living()
        objects.send_object(self._cpu, obj, self._arguments.peer(dst, "dst"))

    @limited_by("cpu_timeout")
    def recv_object(self, src: int) -> Any:
        """Wait for an object from `src`."""
        self._living()
        return objects.recv_object(self._cpu, self._arguments.peer(src, "src"))

    @limited_by("cpu_timeout")
    def isend_object(self, obj: Any, dst: int) -> Handle:
        """Start to send a picklable object, as it is now. The handle may be dropped."""
        self._living()
        self._arguments.peer(dst, "dst")
        self._tensor_dicts.pending.make_room()
        handle = isend_object(self._cpu, obj, dst)
        self._tensor_dicts.pending.add([handle])
        return handle

    # ---- tensor dicts ----

    @limited_by("cpu_timeout")
    def broadcast_tensor_dict(self, tensor_dict: TensorDict | None = None, src: int = 0) -> TensorDict | None:
        """Return the dictionary of `src`, its tensors on the same kind of device.

        Other ranks' `tensor_dict` is not looked at. Raises TypeError, on all ranks, if `src` has no dict.
        """
        self._living()
        self._arguments.rank(src, "src")
        if self.world_size == 1:
            return self._arguments.tensor_dict(tensor_dict)
        return self._tensor_dicts.broadcast(tensor_dict, src)

    @limited_by("cpu_timeout")
    def send_tensor_dict(
        self,
        tensor_dict: TensorDict,
        dst: int | None = None,
        all_gather_group: GroupCoordinator | None = None,
        all_gather_tensors: Mapping[str, bool] | None = None,
    ) -> TensorDict | None:
        """Send a dictionary to `dst`, by default the next rank. Returns None, at world size 1 the dictionary.

        With `all_gather_group`, whose ranks must hold the same tensors, each sends its slice of every tensor
        that divides by the group's size, or as `all_gather_tensors` says for a key; the receivers put the
        slices together.
        """
        for handle in self.isend_tensor_dict(tensor_dict, dst, all_gather_group, all_gather_tensors):
            handle.wait()
        return tensor_dict if self.world_size == 1 else None

    @limited_by("cpu_timeout")
    def recv_tensor_dict(
        self,
        src: int | None = None,
        all_gather_group: GroupCoordinator | None = None,
        all_gather_tensors: Mapping[str, bool] | None = None,
    ) -> TensorDict | None:
        """Return a dictionary from `src`, by default the previous rank; None at world size 1.

        Whether tensors come in slices is the sender's choice: `all_gather_tensors` changes nothing here.
        Raises ValueError where `all_gather_group` is not the match of the sender's.
        """
        tensor_dict, handles, postprocess = self.irecv_tensor_dict(src, all_gather_group, all_gather_tensors)
        for handle in handles:
            handle.wait()
        for function in postprocess:
            function()
        return tensor_dict

    @limited_by("cpu_timeout")
    def isend_tensor_dict(
        self,
        tensor_dict: TensorDict,
        dst: int | None = None,
        all_gather_group: GroupCoordinator | None = None,
        all_gather_tensors: Mapping[str, bool] | None = None,
    ) -> list[Handle]:
        """Start to send a dictionary: a handle for the metadata, then one for each tensor that is not empty.

        Tensors must keep their values until their handle was waited for. Handles may be dropped; 64 dropped
        messages are kept, after which the oldest is waited for. At world size 1 nothing is sent and the list
        is empty.
        """
        self._living()
        if self.world_size == 1:
            self._arguments.tensor_dict(tensor_dict)
            self._arguments.rank(0 if dst is None else dst, "dst")
            return []
        dst = self._arguments.peer(self._next if dst is None else dst, "dst")
        return self._tensor_dicts.isend(tensor_dict, dst, Slicing(all_gather_group, all_gather_tensors))

    @limited_by("cpu_timeout")
    def irecv_tensor_dict(
        self,
        src: int | None = None,
        all_gather_group: GroupCoordinator | None = None,
        all_gather_tensors: Mapping[str, bool] | None = None,  # noqa: ARG002 - the sender decides
    ) -> tuple[TensorDict | None, list[Handle], list[Postprocess]]:
        """Wait for the metadata of a dictionary and start to receive its tensors.

        Returns (dictionary, handles, postprocess). Wait for the handles, then call every function of
        `postprocess`; only then is the dictionary complete.
        """
        self._living()
        if self.world_size == 1:
            self._arguments.rank(0 if src is None else src, "src")
            return None, [], []
        src = self._arguments.peer(self._previous if src is None else src, "src")
        return self._tensor_dicts.irecv(src, all_gather_group)

    # ---- life cycle ----

    def make_sibling_device_group(self, group_desc: str | None = None) -> dist.ProcessGroup:
        """Make a second device group of the same members, which the caller destroys.

        Every rank of the world calls it, as for the constructor.
        """
        return create_sibling(self._living(), self._plan, group_desc or f"{self.unique_name}:sibling")

    def destroy(self) -> None:
        """Destroy the communicator and the process groups; a second call does nothing.

        Sends still in flight are lost: wait for their handles first.
        """
        if self._subgroups is None:
            return
        subgroups, self._subgroups = self._subgroups, None
        communicator, self._communicator = self._communicator, None
        self._checked_collectives = None
        names.unregister(self.unique_name)
        self._tensor_dicts.pending.clear()
        del self._cpu, self._device_group, self._tensor_dicts
        if communicator is not None:
            communicator.destroy()
        subgroups.destroy()

    # ---- helpers ----

    @property
    def _next(self) -> int:
        return (self.rank_in_group + 1) % self.world_size

    @property
    def _previous(self) -> int:
        return (self.rank_in_group - 1) % self.world_size

    def _is_compiled(self) -> bool:
        """Tell whether a compiler is tracing this call, and is to find operators in it."""
        return self.use_custom_ops and torch.compiler.is_compiling()

    def _make_communicator(self) -> Communicator:
        cls = communicator_class(self.device.type)
        if not self.use_custom_ops:
            cls = getattr(cls, "traceable", cls)
        if self.world_size == 1:
            return SingleRankCommunicator(getattr(cls, "reduction_dtypes", REDUCTION_DTYPES))
        try:
            return cls(
                cpu_group=self.cpu_group,
                device=self.device,
                device_group=self.device_group,
                unique_name=self.unique_name,
                global_ranks=self.ranks,
            )
        except BaseException:
            self.destroy()
            raise

    def _living(self) -> Subgroups:
        if self._subgroups is None:
            raise RuntimeError(f"group {self.unique_name!r} is destroyed: make a new coordinator")
        return self._subgroups

    def _checked(self, operation: str) -> CheckedCollectives:
        if self._checked_collectives is None:
            self._living()
            raise ValueError(
                f"No device communicator found for {operation} of group {self.unique_name!r}: "
                "make the coordinator with use_device_communicator=True"
            )
        return self._checked_collectives
