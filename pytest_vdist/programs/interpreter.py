"""A program as one rank carries it out."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch

from pytest_vdist.judge.buffers import GuardedTensor, guard
from pytest_vdist.judge.formats import contiguous_copy

from .forms import forms_of, operands_by_key
from .inputs import input_of, object_of
from .model import AS_IT_IS, COLLECTIVES, ROOTED, Call, Operand, Program
from .records import Report, Seen, SeenError, seen_tensor, seen_value

Coordinator = Any
MakeCoordinator = Callable[[list[list[int]]], Coordinator]

_NOTHING = object()


def execute(world: Coordinator, kept: MakeCoordinator, own: MakeCoordinator, program: Program) -> Report:
    """Carry out a program on the calling rank, and report what it saw.

    `kept` gives coordinators of further groups, which stay; `own` makes some for this program alone. An
    exception that the program does not call for leaves with the call as a note.
    """
    run = _Run(world, kept, own, program)
    try:
        return run.report()
    finally:
        run.close()


class _Run:
    def __init__(
        self, world: Coordinator, kept: MakeCoordinator, own: MakeCoordinator, program: Program
    ) -> None:
        self._world, self._kept, self._own, self._program = world, kept, own, program
        self._forms = forms_of(program)
        self._values: dict[str, torch.Tensor] = {}
        self._bits: list[tuple[str, torch.Tensor, Any]] = []
        self._filled: list[tuple[str, torch.Tensor, Any]] = []
        self._guarded: list[tuple[str, GuardedTensor]] = []
        self._handles: dict[int, Any] = {}
        self._own_groups: dict[int, Coordinator] = {}

    def report(self) -> Report:
        seen = tuple(self._perform(number, call) for number, call in enumerate(self._program.calls))
        for handle in self._handles.values():
            handle.wait()
        return Report(seen, tuple(self._damage()), self._world.device.type)

    def close(self) -> None:
        for group in self._own_groups.values():
            group.destroy()

    def _perform(self, number: int, call: Call) -> Seen:
        group = self._group(call)
        if call.wrong:
            return self._refused(number, call, group)
        try:
            result = self._result(number, call, group)
        except Exception as error:
            error.add_note(f"raised by call {number} of the program, {call.operation}")
            raise
        if result is _NOTHING:
            return None
        seen = seen_value(result)
        if isinstance(result, torch.Tensor):
            self._keep(f"y{number}", result, f"the result of call {number}, {call.operation},")
        return seen

    def _refused(self, number: int, call: Call, group: Coordinator) -> Seen:
        try:
            return seen_value(self._result(number, call, group))
        except Exception as error:
            return SeenError(type(error).__name__, str(error))

    def _result(self, number: int, call: Call, group: Coordinator) -> Any:
        if call.operation in COLLECTIVES:
            return self._collective(number, call, group)
        if call.operation == "send":
            return self._send(number, call, group)
        if call.operation.endswith("tensor_dict"):
            return self._dictionary(number, call, group)
        if call.operation == "barrier":
            group.barrier()
            return _NOTHING
        if call.operation == "destroy":
            group.destroy()
            return _NOTHING
        return self._object(number, call, group)

    def _collective(self, number: int, call: Call, group: Coordinator) -> Any:
        # Operations in place get a tensor of their own, so that values of a program never change.
        in_place = call.operation == "broadcast"
        tensor = self._operand(number, call.operands[0], group, own=in_place)
        result = getattr(group, call.operation)(tensor, **call_arguments(self._program, call, group))
        if in_place and not call.wrong:
            self._filled.append((f"the tensor given to call {number}, {call.operation},", tensor, result))
        return result

    def _send(self, number: int, call: Call, group: Coordinator) -> Any:
        pair = call.pair(group.world_size)
        if pair is None or group.rank_in_group not in pair:
            return _NOTHING
        source, destination = pair
        by_default = is_default_peer(call, group.world_size)
        if group.rank_in_group == source:
            tensor = self._operand(number, call.operands[0], group)
            group.send(tensor) if by_default else group.send(tensor, destination)
            return _NOTHING
        form = self._forms[f"y{number}"]
        shape, dtype = form.shapes[group.rank], getattr(torch, form.dtype)
        return group.recv(shape, dtype) if by_default else group.recv(shape, dtype, source)

    def _dictionary(self, number: int, call: Call, group: Coordinator) -> Any:
        if call.operation == "broadcast_tensor_dict":
            source = call.root % group.world_size
            content = self._content(number, call, group) if group.rank_in_group == source else None
            return self._received(number, group.broadcast_tensor_dict(content, source))
        if call.operation == "shift_tensor_dict":
            return self._shift(number, call, group)
        pair = call.pair(group.world_size)
        if pair is None or group.rank_in_group not in pair:
            return _NOTHING
        source, destination = pair
        by_default = is_default_peer(call, group.world_size)
        if group.rank_in_group == source:
            send = group.send_tensor_dict if call.blocking else group.isend_tensor_dict
            sent = send(self._content(number, call, group), None if by_default else destination)
            for handle in () if call.blocking else sent:
                handle.wait()
            return _NOTHING
        return self._received(number, _receive(group, None if by_default else source, blocking=call.blocking))

    def _shift(self, number: int, call: Call, group: Coordinator) -> Any:
        distance = call.distance(group.world_size)
        if not distance:
            return _NOTHING
        to = (group.rank_in_group + distance) % group.world_size
        source = (group.rank_in_group - distance) % group.world_size
        contents = [self._content(number, call, group, repeat) for repeat in range(call.repeats)]
        handles = list(itertools.chain(*(group.isend_tensor_dict(content, to) for content in contents)))
        received = [_receive(group, source, blocking=call.blocking) for _ in contents]
        for handle in handles:
            handle.wait()
        self._received(number, received[0])
        return received

    def _object(self, number: int, call: Call, group: Coordinator) -> Any:
        sent = self._program.calls[call.message] if call.operation == "recv_object" else call
        obj = object_of(sent.value, group.rank)
        if call.operation == "broadcast_object":
            return group.broadcast_object(obj, call.root % group.world_size)
        if call.operation == "broadcast_object_list":
            source = call.root % group.world_size
            objects = [obj, None] if group.rank_in_group == source else [None, 0]
            returned = group.broadcast_object_list(objects, source)
            return returned if returned is objects else ["another list", returned]
        pair = sent.pair(group.world_size)
        if pair is None or group.rank_in_group not in pair:
            return _NOTHING
        source, destination = pair
        if group.rank_in_group == source:
            if call.operation == "recv_object":
                self._handles.pop(call.message).wait()
            elif call.operation == "isend_object":
                self._handles[number] = group.isend_object(obj, destination)
            else:
                group.send_object(obj, destination)
            return _NOTHING
        return _NOTHING if call.operation == "isend_object" else group.recv_object(source)

    def _content(self, number: int, call: Call, group: Coordinator, repeat: int = 0) -> dict[str, Any]:
        tensors = {key: self._operand(number, operand, group) for key, operand in operands_by_key(call)}
        return {**tensors, "object": object_of(call.value, group.rank, repeat)}

    def _received(self, number: int, received: Any) -> Any:
        """Keep the tensors of a dictionary for later calls, where it is what it should be."""
        call = self._program.calls[number]
        for index, (key, _) in enumerate(operands_by_key(call)):
            tensor = received.get(key) if isinstance(received, dict) else None
            if isinstance(tensor, torch.Tensor):
                self._keep(f"y{number}_{index}", tensor, f"{key!r} of call {number}, {call.operation},")
        return received

    def _group(self, call: Call) -> Coordinator:
        groups = self._program.groups[call.group]
        if call.group == 0:
            return self._world
        lists = [list(ranks) for ranks in groups.ranks]
        if not groups.own:
            return self._kept(lists)
        if call.group not in self._own_groups:
            self._own_groups[call.group] = self._own(lists)
        return self._own_groups[call.group]

    def _operand(
        self, number: int, operand: Operand, group: Coordinator, *, own: bool = False
    ) -> torch.Tensor:
        name = operand.value
        if name.startswith("x") and name not in self._values:
            made = input_of(self._program, int(name[1:]), group.rank).to(group.device)
            self._keep(name, made, f"input {name}")
        if operand.layout == AS_IT_IS and not own:
            return self._values[name]
        values = contiguous_copy(self._values[name]).cpu()
        if own and operand.layout == AS_IT_IS:
            return values.to(group.device)
        guarded = guard(values, operand.layout, group.device)
        label = (
            f"the {operand.layout} copy of {name} in call {number}, {self._program.calls[number].operation},"
        )
        self._guarded.append((("" if own else "values of ") + label, guarded))
        return guarded.tensor

    def _keep(self, name: str, tensor: torch.Tensor, label: str) -> None:
        self._values[name] = tensor
        self._bits.append((label, tensor, seen_tensor(tensor)))

    def _damage(self) -> list[str]:
        found = [
            f"{label} was changed later" for label, tensor, bits in self._bits if seen_tensor(tensor) != bits
        ]
        for label, tensor, result in self._filled:
            if not isinstance(result, torch.Tensor) or seen_tensor(result) != seen_tensor(tensor):
                found.append(f"{label} does not hold its result")
        for label, guarded in self._guarded:
            name = label.removeprefix("values of ")
            if name != label and not guarded.values_intact():
                found.append(f"{name} was changed")
            if not guarded.canaries_intact():
                found.append(f"memory around {name} was written")
        return found


def call_arguments(program: Program, call: Call, group: Coordinator) -> dict[str, Any]:
    """Return the arguments of a collective after the tensor, in the group of the coordinator."""
    arguments: dict[str, Any] = {}
    if call.operation not in {"all_reduce", "broadcast"}:
        arguments["dim"] = call.dim
    if call.operation in ROOTED:
        root = group.world_size if call.wrong == "rank" else call.root % group.world_size
        arguments["dst" if call.operation == "gather" else "src"] = root
    if call.operation in {"all_gatherv", "reduce_scatterv"} and call.sizes is not None:
        index = program.groups[call.group].ranks.index(program.group_of(call, group.rank))
        arguments["sizes"] = list(call.sizes[index])
    return arguments


def is_default_peer(call: Call, size: int) -> bool:
    """Tell whether a call names no peer: it goes from a rank to the next one."""
    return call.default_peer and call.distance(size) == 1


def _receive(group: Coordinator, source: int | None, *, blocking: bool) -> Any:
    if blocking:
        return group.recv_tensor_dict(source)
    received, handles, postprocess = group.irecv_tensor_dict(source)
    for handle in handles:
        handle.wait()
    for function in postprocess:
        function()
    return received
