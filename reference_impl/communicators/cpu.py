"""Groups on the CPU: over shared memory where all ranks share it, else over gloo."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.distributed as dist

from .. import _compat  # noqa: TID252
from ..ordered_group import OrderedGroup  # noqa: TID252
from ..tensor_dict import TensorDict  # noqa: TID252
from ..wire import compact, require_reducible, sum_view  # noqa: TID252
from .base import DeviceCommunicatorBase
from .shm.connect import connect
from .shm.labels import Labels
from .shm.mailbox import Mailbox
from .shm.members import SharedMembers, SharedMemory

_CPU = torch.device("cpu")


class CpuCommunicator(DeviceCommunicatorBase):
    """Collectives and tensor dicts over shared memory, messages over gloo; all over gloo where ranks differ.

    `shared_memory_obstacle` says, on all ranks alike, why memory is not shared, and is None where it is.
    Compilers cannot look into it; `traceable` is the class for coordinators into which they do.
    """

    traceable: ClassVar[type[DeviceCommunicatorBase]] = DeviceCommunicatorBase

    def __init__(
        self,
        cpu_group: dist.ProcessGroup,
        device: torch.device | None = None,
        device_group: dist.ProcessGroup | None = None,
        unique_name: str = "",
        global_ranks: Sequence[int] | None = None,
    ) -> None:
        """Take the groups of a coordinator. Every rank of the group calls it, as they have to connect."""
        super().__init__(cpu_group, device, device_group, unique_name, global_ranks)
        self.shared_memory_obstacle: str | None = None
        self.cpu_members: SharedMembers | None = None
        self._shared: SharedMemory | None = None
        self._shared_members: SharedMembers | None = None
        self._mailbox: Mailbox | None = None
        if self.world_size > 1:
            self._share_memory()

    @property
    def supports_tensor_dict(self) -> bool:
        """Whether `send_tensor_dict` and `recv_tensor_dict` work; the same on all ranks of the group."""
        return self._mailbox is not None

    def all_reduce(self, input_: torch.Tensor) -> torch.Tensor:
        """Return the sum over the group; `input_` keeps its values."""
        if self._shared_members is None:
            return super().all_reduce(input_)
        require_reducible(input_.dtype, self.reduction_dtypes, "all_reduce")
        own = compact(input_)
        total = self._shared_members.all_reduce(sum_view(own).view(-1))
        return total.view(own.dtype).view(own.shape)

    def send_tensor_dict(self, tensor_dict: TensorDict, dst: int) -> bool:
        """Send a dictionary through shared memory; nothing has to stay as it is afterwards.

        Raises NotImplementedError where memory is not shared.
        """
        if self._mailbox is None:
            return super().send_tensor_dict(tensor_dict, dst)
        return self._mailbox.send(tensor_dict, dst)

    def recv_tensor_dict(self, src: int) -> TensorDict | None:
        """Return a dictionary that `src` has sent through shared memory."""
        if self._mailbox is None:
            return super().recv_tensor_dict(src)
        return self._mailbox.receive(src)

    def destroy(self) -> None:
        """Let go of the process groups and of the memory. Ranks that still wait for this one get an error."""
        if self._mailbox is not None:
            self._mailbox.close()
        if self._shared is not None:
            self._shared.links.close()
        self._mailbox = self._shared = self._shared_members = self.cpu_members = None
        super().destroy()

    def _share_memory(self) -> None:
        cpu_timeout = _compat.timeout_of(self.cpu_group, _CPU)
        connected = connect(OrderedGroup(self.cpu_group, self.ranks), self.unique_name, cpu_timeout)
        if isinstance(connected, str):
            self.shared_memory_obstacle = connected
            return
        shared = self._shared = SharedMemory(connected, self.rank_in_group, self.world_size)
        timeout = _compat.timeout_of(self.device_group, _CPU)
        labels, cpu_labels = (Labels(group, self.ranks) for group in (self.device_group, self.cpu_group))
        self._members = self._shared_members = SharedMembers(shared, timeout, self._members, labels)
        self.cpu_members = SharedMembers(shared, cpu_timeout, self._members, cpu_labels)
        self._mailbox = Mailbox(shared.links, cpu_timeout, cpu_labels)
