"""A program as the Python statements that one rank carries out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .forms import forms_of, operands_by_key
from .inputs import object_of
from .model import AS_IT_IS, COLLECTIVES, ROOTED, Call, Operand, Program


@dataclass(frozen=True)
class Statement:
    """One line. `call` is the number of the call that it is part of, None where it makes an input.

    `result` names the variable that holds what the call gave. `refused` says that it must raise.
    """

    code: str
    call: int | None = None
    result: str = ""
    refused: bool = False


def statements_of(program: Program, rank: int) -> list[Statement]:
    """Return what a rank does, in order. Coordinators are called world, g1, g2, and so on."""
    return list(_Writer(program, rank).write())


def group_name(number: int) -> str:
    return f"g{number}" if number else "world"


class _Writer:
    def __init__(self, program: Program, rank: int) -> None:
        self._program, self._rank = program, rank
        self._forms = forms_of(program)
        self._known: set[str] = set()

    def write(self) -> Iterator[Statement]:
        for number, call in enumerate(self._program.calls):
            for operand in call.operands:
                yield from self._input(call, operand)
            yield from self._call(number, call)

    def _input(self, call: Call, operand: Operand) -> Iterator[Statement]:
        name = operand.value
        if name.startswith("x") and name not in self._known and self._passes(call):
            self._known.add(name)
            yield Statement(f"{name} = input_{name}")

    def _passes(self, call: Call) -> bool:
        """Tell whether this rank passes the operands of a call."""
        if call.operation in COLLECTIVES or call.operation == "shift_tensor_dict":
            return True
        return self._place(call)[0] == self._place(call)[1]

    def _place(self, call: Call) -> tuple[int, int, int]:
        """Return this rank in its group, the source, and the destination; -1 for none."""
        ranks = self._program.group_of(call, self._rank)
        own, size = ranks.index(self._rank), len(ranks)
        if call.operation in ROOTED:
            return own, call.root % size, -1
        pair = call.pair(size) or (-1, -1)
        return own, *pair

    def _call(self, number: int, call: Call) -> Iterator[Statement]:
        group = group_name(call.group)
        if call.operation in {"barrier", "destroy"}:
            yield Statement(f"{group}.{call.operation}()", number)
        elif call.operation in COLLECTIVES:
            yield self._collective(number, call)
        elif call.operation == "send":
            yield from self._send(number, call)
        elif call.operation.endswith("tensor_dict"):
            yield from self._dictionary(number, call)
        else:
            yield from self._object(number, call)

    def _collective(self, number: int, call: Call) -> Statement:
        size = len(self._program.group_of(call, self._rank))
        operand = self._operand(call.operands[0], own=call.operation == "broadcast")
        arguments = [operand]
        if call.operation in ROOTED:
            root = size if call.wrong == "rank" else call.root % size
            arguments.append(f"{'dst' if call.operation == 'gather' else 'src'}={root}")
        if call.operation not in {"all_reduce", "broadcast"}:
            arguments.append(f"dim={call.dim}")
        if call.sizes is not None:
            index = self._program.groups[call.group].ranks.index(self._program.group_of(call, self._rank))
            arguments.append(f"sizes={list(call.sizes[index])}")
        code = f"{group_name(call.group)}.{call.operation}({', '.join(arguments)})"
        return self._statement(code, number, call)

    def _statement(self, code: str, number: int, call: Call) -> Statement:
        if call.wrong:
            return Statement(code, number, refused=True)
        return Statement(f"y{number} = {code}", number, f"y{number}")

    def _send(self, number: int, call: Call) -> Iterator[Statement]:
        own, source, destination = self._place(call)
        peer = self._peer(call)
        if own == source:
            yield Statement(
                f"{group_name(call.group)}.send({self._operand(call.operands[0])}{peer(destination)})", number
            )
        elif own == destination:
            form = self._forms[f"y{number}"]
            receive = (
                f"{group_name(call.group)}.recv({form.shapes[self._rank]}, torch.{form.dtype}{peer(source)})"
            )
            yield Statement(f"y{number} = {receive}", number, f"y{number}")

    def _dictionary(self, number: int, call: Call) -> Iterator[Statement]:
        group = group_name(call.group)
        own, source, destination = self._place(call)
        if call.operation == "broadcast_tensor_dict":
            content = self._content(call) if own == source else "None"
            code = f"{group}.broadcast_tensor_dict({content}, src={source})"
            yield Statement(f"y{number} = {code}", number, f"y{number}")
            yield from self._parts(number, call, f"y{number}")
        elif call.operation == "shift_tensor_dict":
            yield from self._shift(number, call)
        elif own == source:
            peer = self._peer(call)(destination)
            code = f"send_tensor_dict({self._content(call)}{peer})"
            yield Statement(f"{group}.{code}" if call.blocking else f"wait_for({group}.i{code})", number)
        elif own == destination:
            yield from self._receive(number, call, f"y{number}", self._peer(call)(source).removeprefix(", "))
            yield from self._parts(number, call, f"y{number}")

    def _receive(self, number: int, call: Call, name: str, source: str) -> Iterator[Statement]:
        group = group_name(call.group)
        receive = f"{group}.recv_tensor_dict({source})"
        if not call.blocking:
            receive = f"completed({group}.irecv_tensor_dict({source}))"
        yield Statement(f"{name} = {receive}", number, name)

    def _shift(self, number: int, call: Call) -> Iterator[Statement]:
        ranks = self._program.group_of(call, self._rank)
        size, own = len(ranks), ranks.index(self._rank)
        distance = call.distance(size)
        if not distance:
            return
        group = group_name(call.group)
        names = [f"h{number}_{n}" for n in range(call.repeats)]
        for repeat, name in enumerate(names):
            send = f"{group}.isend_tensor_dict({self._content(call, repeat)}, {(own + distance) % size})"
            yield Statement(f"{name} = {send}", number)
        for repeat in range(call.repeats):
            name = f"y{number}r{repeat}"
            yield from self._receive(number, call, name, str((own - distance) % size))
        for name in names:
            yield Statement(f"wait_for({name})", number)
        yield from self._parts(number, call, f"y{number}r0")

    def _parts(self, number: int, call: Call, name: str) -> Iterator[Statement]:
        for index, (key, _) in enumerate(operands_by_key(call)):
            if self._is_used(f"y{number}_{index}"):
                yield Statement(f"y{number}_{index} = {name}[{key!r}]", number)

    def _is_used(self, value: str) -> bool:
        return any(operand.value == value for call in self._program.calls for operand in call.operands)

    def _object(self, number: int, call: Call) -> Iterator[Statement]:
        group = group_name(call.group)
        sent = self._program.calls[call.message] if call.operation == "recv_object" else call
        own, source, destination = self._place(sent)
        obj = repr(object_of(sent.value, self._rank))
        if call.operation == "broadcast_object":
            yield Statement(
                f"y{number} = {group}.broadcast_object({obj}, src={source})", number, f"y{number}"
            )
        elif call.operation == "broadcast_object_list":
            objects = f"[{obj}, None]" if own == source else "[None, 0]"
            code = f"{group}.broadcast_object_list({objects}, src={source})"
            yield Statement(f"y{number} = {code}", number, f"y{number}")
        elif own == source and call.operation == "recv_object":
            yield Statement(f"h{call.message}.wait()", number)
        elif own == source and call.operation == "isend_object":
            yield Statement(f"h{number} = {group}.isend_object({obj}, {destination})", number)
        elif own == source:
            yield Statement(f"{group}.send_object({obj}, {destination})", number)
        elif own == destination and call.operation != "isend_object":
            yield Statement(f"y{number} = {group}.recv_object({source})", number, f"y{number}")

    def _content(self, call: Call, repeat: int = 0) -> str:
        parts = [f"{key!r}: {self._operand(operand)}" for key, operand in operands_by_key(call)]
        parts.append(f"'object': {object_of(call.value, self._rank, repeat)!r}")
        return "{" + ", ".join(parts) + "}"

    def _operand(self, operand: Operand, *, own: bool = False) -> str:
        if operand.layout != AS_IT_IS:
            return f"{operand.layout}({operand.value})"
        return f"{operand.value}.clone()" if own else operand.value

    def _peer(self, call: Call) -> _Peer:
        size = len(self._program.group_of(call, self._rank))
        return _Peer(by_default=call.default_peer and call.distance(size) == 1)


@dataclass(frozen=True)
class _Peer:
    """Writes a peer as the last argument; nothing where it is the default one."""

    by_default: bool

    def __call__(self, rank: int) -> str:
        return "" if self.by_default else f", {rank}"
