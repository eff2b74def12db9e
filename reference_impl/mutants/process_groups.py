"""Process groups whose backend, or torch.distributed in front of it, has one thing wrong."""

from __future__ import annotations

import importlib
import weakref
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from ..coordinator import GroupCoordinator  # noqa: TID252
from .registry import Original, Patch, mutant
from .tools import flip_bit, in_memory_order

Change = Callable[[Patch], None]

DEFECT = "process groups"
# Where gloo itself does these things wrong, nothing can be noticed.
RIGHT_BY_THEMSELVES = ("simdev",)
# torch 2.13 has renamed it.
ALL_GATHER_TENSOR = "all_gather_single" if hasattr(dist, "all_gather_single") else "all_gather_into_tensor"


class Spoiler:
    """Changes torch.distributed whenever somebody asks a coordinator for its process group.

    The runner puts torch.distributed back after each run, but the coordinators stay.
    """

    def __init__(self, change: Change) -> None:
        patch = Patch()
        change(patch)
        self._changed = [(owner, name, vars(owner)[name]) for owner, name, _ in patch.replaced]
        patch.undo()

    def apply(self) -> None:
        for owner, name, changed in self._changed:
            if vars(owner)[name] is not changed:
                setattr(owner, name, changed)


def group_mutant(defect: str, *kills: str, **needs: Any) -> Callable[[Change], Change]:
    """Register a change of torch.distributed as a mutant of the groups that coordinators show."""

    def register(change: Change) -> Change:
        def spoil(patch: Patch) -> None:
            spoiler, shown = Spoiler(change), vars(GroupCoordinator)["device_group"]

            def device_group(self: GroupCoordinator) -> dist.ProcessGroup:
                spoiler.apply()
                return shown.fget(self)

            patch.value(GroupCoordinator, "device_group", property(device_group))

        mutant(defect, *kills, name=change.__name__, summary=change.__doc__, **needs)(spoil)
        return change

    return register


def replacing_reduction(patch: Patch, wanted: Any, made: Any) -> None:
    """Let all_reduce make one reduction in the place of another."""

    @patch.around(dist.ProcessGroup, "allreduce")
    def allreduce(original: Original, self: dist.ProcessGroup, tensors: Any, options: Any) -> Any:
        if options.reduceOp == wanted:
            options.reduceOp = made
        return original(self, tensors, options)


@group_mutant(DEFECT, "VD-PG-001")
def minima_are_maxima(patch: Patch) -> None:
    """all_reduce with MIN gives the maximum."""
    replacing_reduction(patch, dist.ReduceOp.MIN, dist.ReduceOp.MAX)


@group_mutant(DEFECT, "VD-PG-001")
def averages_are_sums(patch: Patch) -> None:
    """all_reduce with AVG does not divide."""
    replacing_reduction(patch, dist.ReduceOp.AVG, dist.ReduceOp.SUM)


@group_mutant(DEFECT, "VD-PG-001")
def exclusive_or_is_or(patch: Patch) -> None:
    """all_reduce with BXOR sets the bits that all ranks have."""
    replacing_reduction(patch, dist.ReduceOp.BXOR, dist.ReduceOp.BOR)


@group_mutant(DEFECT, "VD-PG-002", devices=("cpu",))
def what_cannot_be_gathered_is_left_out(patch: Patch) -> None:
    """all_gather of tensors of different sizes, which gloo refuses, does nothing."""

    @patch.around(dist.ProcessGroup, "allgather")
    def allgather(original: Original, self: dist.ProcessGroup, *args: Any) -> Any:
        try:
            return original(self, *args)
        except RuntimeError:
            return self.barrier(dist.BarrierOptions())


@group_mutant(DEFECT, "VD-PG-003")
def parts_of_sums_are_dealt_out_backwards(patch: Patch) -> None:
    """The first rank gets the last tensor of a reduce-scatter of lists."""

    @patch.around(dist.ProcessGroup, "reduce_scatter")
    def reduce_scatter(original: Original, self: Any, outputs: Any, inputs: Any, *args: Any) -> Any:
        return original(self, outputs, [each[::-1] for each in inputs], *args)


@group_mutant(DEFECT, "VD-PG-004")
def gathered_tensors_are_listed_backwards(patch: Patch) -> None:
    """The first tensor of an all-gather into a list is that of the last rank."""

    @patch.around(dist.ProcessGroup, "allgather")
    def allgather(original: Original, self: Any, outputs: Any, *args: Any) -> Any:
        return original(self, [each[::-1] for each in outputs], *args)


@group_mutant(DEFECT, "VD-PG-005")
def the_last_row_of_an_exchange_is_lost(patch: Patch) -> None:
    """all_to_all_single does not write the last row of the output."""

    @patch.around(dist, "all_to_all_single")
    def all_to_all_single(original: Original, output: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        last = output[-1:].clone()
        work = original(output, *args, **kwargs)
        output[-1:] = last
        return work


@group_mutant("rank mapping", "VD-PG-006", world_size=4)
def global_roots_are_taken_for_ranks_in_the_group(patch: Patch) -> None:
    """Broadcast in a subgroup takes the global rank of its source for the rank in the group."""

    @patch.around(dist, "broadcast")
    def broadcast(original: Original, tensor: Any, src: Any = None, group: Any = None, **kwargs: Any) -> Any:
        if src is not None and group is not None:
            return original(tensor, group=group, **kwargs | {"group_src": src % group.size()})
        return original(tensor, src, group, **kwargs)


@group_mutant("point-to-point", "VD-PG-007")
def large_messages_lose_a_bit(patch: Patch) -> None:
    """The first bit of a message of more than 4096 elements is wrong."""

    @patch.around(dist.ProcessGroup, "send")
    def send(original: Original, self: Any, tensors: Any, *args: Any) -> Any:
        if tensors[0].numel() > 4096:
            tensors = [flip_bit(tensors[0].clone())]
        return original(self, tensors, *args)


@group_mutant("point-to-point", "VD-PG-008")
def messages_in_flight_are_received_into_copies(patch: Patch) -> None:
    """What irecv receives does not come into the tensor."""

    @patch.around(dist, "irecv")
    def irecv(original: Original, tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        return original(tensor.clone(), *args, **kwargs)


@group_mutant("point-to-point", "VD-PG-009")
def the_last_message_of_a_batch_is_lost(patch: Patch) -> None:
    """The last operation of batch_isend_irecv works on a copy of its tensor."""

    @patch.around(dist, "batch_isend_irecv")
    def batch_isend_irecv(original: Original, operations: Any) -> Any:
        operations[-1].tensor = operations[-1].tensor.clone()
        return original(operations)


class LateResult:
    """The handle of a sum that is made in a buffer, which all sums in flight share."""

    latest: torch.Tensor

    def __init__(self, work: Any, tensor: torch.Tensor, buffer: torch.Tensor) -> None:
        self.work, self.tensor = work, tensor
        LateResult.latest = buffer

    def wait(self, *args: Any) -> bool:
        self.work.wait(*args)
        self.tensor.copy_(LateResult.latest.view_as(self.tensor))
        return True


@group_mutant("handles", "VD-PG-010")
def sums_in_flight_share_a_buffer(patch: Patch) -> None:
    """Each of several sums in flight gives the result of the one that was started last."""

    @patch.around(dist, "all_reduce")
    def all_reduce(original: Original, tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if not kwargs.get("async_op"):
            return original(tensor, *args, **kwargs)
        buffer = tensor.clone()
        return LateResult(original(buffer, *args, **kwargs), tensor, buffer)


def refusing_second_wait(patch: Patch) -> None:
    """Let a handle that was waited for refuse a second wait."""
    waited: weakref.WeakSet[Any] = weakref.WeakSet()

    @patch.around(dist.Work, "wait")
    def wait(original: Original, self: Any, *args: Any) -> Any:
        if self in waited:
            raise RuntimeError("this work was waited for before")
        waited.add(self)
        return original(self, *args)


@group_mutant("handles", "VD-PG-011")
def handles_are_waited_for_once(patch: Patch) -> None:
    """A further wait for an operation raises."""
    refusing_second_wait(patch)


@group_mutant("handles", "VD-PG-013", devices=RIGHT_BY_THEMSELVES)
def messages_are_waited_for_once(patch: Patch) -> None:
    """A further wait for a message raises."""
    refusing_second_wait(patch)


@group_mutant("handles", "VD-PG-012")
def futures_hold_zeros(patch: Patch) -> None:
    """What the future of a handle holds is not what the operation has written."""

    @patch.around(dist.Work, "get_future")
    def get_future(original: Original, self: Any) -> Any:
        return original(self).then(lambda done: [torch.zeros_like(each) for each in done.value()])


@group_mutant("contiguity", "VD-PG-014", devices=RIGHT_BY_THEMSELVES)
def sums_take_strided_tensors_as_they_lie(patch: Patch) -> None:
    """all_reduce works on as many elements as there are, from the first one on."""

    @patch.around(dist.ProcessGroup, "allreduce")
    def allreduce(original: Original, self: Any, tensors: Any, *args: Any) -> Any:
        return original(self, [in_memory_order(tensor) for tensor in tensors], *args)


@group_mutant("values", "VD-PG-015")
def broadcasts_write_before_the_tensor(patch: Patch) -> None:
    """Broadcast clears the element that lies before a tensor within a larger one."""

    @patch.around(dist, "broadcast")
    def broadcast(original: Original, tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        work = original(tensor, *args, **kwargs)
        if tensor.storage_offset():
            tensor.as_strided((1,), (1,), tensor.storage_offset() - 1).zero_()
        return work


@group_mutant(DEFECT, "VD-PG-016")
def the_last_coalesced_sum_is_left_out(patch: Patch) -> None:
    """Of several sums that are made as one, the last is not made."""

    @patch.around(dist.ProcessGroup, "allreduce_coalesced")
    def allreduce_coalesced(original: Original, self: Any, tensors: Any, *args: Any) -> Any:
        return original(self, tensors[:-1], *args)


@group_mutant("aliasing", "VD-PG-017")
def functional_sums_write_to_their_input(patch: Patch) -> None:
    """The functional all_reduce leaves its result in the input as well."""
    # Compilers call what lies in this module, which torch does not document.
    module = importlib.import_module("torch.distributed._functional_collectives")

    @patch.around(module, "all_reduce")
    def all_reduce(original: Original, self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        self.copy_(result)
        return result


@group_mutant("rank mapping", "VD-PG-018")
def strangers_have_a_rank_in_the_group(patch: Patch) -> None:
    """get_group_rank gives ranks outside the group one inside."""

    @patch.around(dist, "get_group_rank")
    def get_group_rank(original: Original, group: dist.ProcessGroup, global_rank: int) -> int:
        try:
            return original(group, global_rank)
        except ValueError:
            return global_rank % group.size()


@group_mutant("arguments", "VD-PG-019")
def outputs_that_are_too_small_are_left_alone(patch: Patch) -> None:
    """An all-gather into a tensor that cannot hold all parts does nothing."""

    @patch.around(dist, ALL_GATHER_TENSOR)
    def all_gather(original: Original, output: Any, input_: Any, group: Any = None, **kwargs: Any) -> Any:
        if group is not None and output.numel() < group.size() * input_.numel():
            return None
        return original(output, input_, group=group, **kwargs)


@group_mutant("handles", "VD-PG-020", devices=RIGHT_BY_THEMSELVES)
def handles_are_never_completed(patch: Patch) -> None:
    """is_completed() of an operation that is done says that it is not."""

    @patch.around(dist.Work, "is_completed")
    def is_completed(original: Original, self: Any) -> bool:
        return False


@group_mutant("arguments", "VD-PG-021", devices=RIGHT_BY_THEMSELVES)
def rows_beyond_equal_parts_are_left_out(patch: Patch) -> None:
    """all_to_all_single without splits exchanges what can be divided, and leaves the rest."""

    @patch.around(dist, "all_to_all_single")
    def all_to_all_single(
        original: Original, output: Any, input_: Any, *args: Any, group: Any = None, **kwargs: Any
    ) -> Any:
        if not any(args) and group is not None:
            rows = len(input_) // group.size() * group.size()
            output, input_ = output[:rows], input_[:rows]
        return original(output, input_, *args, group=group, **kwargs)
