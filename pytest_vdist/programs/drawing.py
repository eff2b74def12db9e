"""Bytes turned into valid programs: any bytes make one, smaller bytes make a simpler one.

Each call is made of `CALL_BYTES` bytes, by what is known of the values before it; a small first byte leaves
it out. So a search may make any byte smaller, and what is left is still valid.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import torch

from pytest_vdist.judge.buffers import LAYOUTS, layout_fits
from pytest_vdist.judge.formats import NumberFormat, format_of

from .forms import Form, InvalidProgramError, input_form, results_of
from .model import AS_IT_IS, COLLECTIVES, SUMS, Call, Groups, Input, Operand, Program, Shape
from .reduction import part
from .scope import KINDS, LARGE_SHAPES, OBJECTS, SHAPES, Scope, partitions_of

CALL_BYTES = 10
_LARGEST = 300_000
_LEFT_OUT_BELOW = 112
_OWN_FROM = 252
_LAYOUTS = (AS_IT_IS, *(layout for layout in LAYOUTS if layout != "expanded"))


def program_from(scope: Scope, data: bytes, seed: int = 0) -> Program:
    """Return the program that these bytes stand for; one all_reduce for bytes that leave out all calls."""
    drawing = _Drawing(scope, seed)
    for start in range(0, len(data), CALL_BYTES):
        if data[start] >= _LEFT_OUT_BELOW:
            drawing.add(_Bytes(data[start : start + CALL_BYTES]))
    if not drawing.calls:
        drawing.add(_Bytes(b""))
    drawing.receive_the_rest()
    drawn = drawing.program()
    return part(drawn, range(len(drawn.calls)))


class _Bytes:
    """Takes choices from bytes; when they have run out, always the first."""

    def __init__(self, data: bytes) -> None:
        self._data = iter(data)

    def byte(self) -> int:
        return next(self._data, 0)

    def below(self, count: int) -> int:
        return self.byte() % count


class _Drawing:
    def __init__(self, scope: Scope, seed: int) -> None:
        self._scope, self._seed = scope, seed
        size = scope.world_size
        self._partitions = partitions_of(size)
        self._groups = [Groups(self._partitions[0])]
        self._inputs: list[Input] = []
        self.calls: list[Call] = []
        self._forms: dict[str, Form] = {}
        self._destroyed: set[int] = set()
        self._pending: list[int] = []

    def program(self) -> Program:
        return Program(
            self._scope.world_size, tuple(self._groups), tuple(self._inputs), tuple(self.calls), self._seed
        )

    def add(self, choose: _Bytes) -> None:
        """Add a call, or nothing where the implementation has no such operation."""
        kind = KINDS[max(0, choose.byte() - _LEFT_OUT_BELOW) % len(KINDS)]
        group = self._group(choose)
        if kind in self._scope.unsupported:
            return
        if group in self._destroyed:
            self.calls.append(Call("all_reduce", group, (self._new_operand((1,)),), wrong="destroyed"))
        elif kind in COLLECTIVES:
            self._add_collective(kind, group, choose)
        elif kind == "refused":
            self._add_refused(group, choose)
        elif kind == "destroy":
            self._add_destroy(group)
        elif kind == "recv_object":
            self._receive_object()
        else:
            self._add_transfer(kind, group, choose)

    def receive_the_rest(self) -> None:
        while self._pending:
            self._receive_object()

    # ---- groups ----

    def _group(self, choose: _Bytes) -> int:
        byte = choose.byte()
        if byte < 96:
            return 0
        own = byte >= _OWN_FROM and self._scope.own_groups
        ranks = self._partitions[byte % len(self._partitions)]
        groups = Groups(ranks, own)
        if ranks == self._partitions[0] and not own:
            return 0
        if groups not in self._groups:
            self._groups.append(groups)
        return self._groups.index(groups)

    def _add_destroy(self, group: int) -> None:
        used = {call.group for call in self.calls} - self._destroyed
        own = [number for number in used if self._groups[number].own]
        if own:
            self._receive_all_of(own[0])
            self._destroyed.add(own[0])
            self.calls.append(Call("destroy", own[0]))
        else:
            self.calls.append(Call("barrier", group))

    # ---- operands ----

    def _new_operand(
        self, shape: Shape, dtype: str = "float32", values: str = "small", ragged: int = 0
    ) -> Operand:
        made = Input(shape, dtype, values, ragged)
        name = f"x{len(self._inputs)}"
        self._inputs.append(made)
        self._forms[name] = input_form(made, self._scope.world_size)
        return Operand(name)

    def _earlier(self) -> list[str]:
        """Return the names of values that a call may take, the latest first."""
        held = (None,) * self._scope.world_size
        return [name for name, form in reversed(self._forms.items()) if form.exact and form.shapes != held]

    def _shape(self, choose: _Bytes) -> Shape:
        byte = choose.byte()
        return LARGE_SHAPES[byte - 252] if byte >= 252 else SHAPES[byte % len(SHAPES)]

    def _dtype_and_values(self, choose: _Bytes, *, summed: bool) -> tuple[str, str]:
        names = self._scope.reduction_dtypes if summed else self._scope.movement_dtypes
        dtype = names[choose.below(len(names))]
        kind = choose.below(8)
        if not summed:
            return dtype, "small" if kind < 3 and dtype != "bool" else "bits"
        if kind == 7 and isinstance(format_of(getattr(torch, dtype)), NumberFormat):
            return dtype, "rounding"
        return dtype, "small" if kind < 4 else "wide"

    def _layout(self, choose: _Bytes, operand: Operand) -> Operand:
        byte = choose.byte()
        layout = _LAYOUTS[byte % len(_LAYOUTS)] if byte >= 160 and self._scope.layouts else AS_IT_IS
        dims = next(len(shape) for shape in self._forms[operand.value].shapes if shape is not None)
        if layout != AS_IT_IS and not layout_fits(layout, (1,) * dims):
            layout = AS_IT_IS
        return Operand(operand.value, layout)

    # ---- collectives ----

    def _add_collective(self, kind: str, group: int, choose: _Bytes) -> None:
        ranks = self._groups[group].ranks
        byte, numbers = choose.byte(), [choose.byte() for _ in range(2)]
        candidates = self._earlier() if byte >= 112 else []
        for name in itertools.islice(_rotated(candidates, byte), 4):
            call = self._collective(kind, group, name, numbers)
            if call is not None and self._try(call):
                self._relayout(choose)
                return
        shape = self._shape(choose)
        dtype, values = self._dtype_and_values(choose, summed=kind in SUMS)
        if kind not in {"all_reduce", "broadcast"} and not shape:
            shape = (1,)
        if kind in {"reduce_scatter", "reduce_scatterv"}:
            shape = _divisible(shape, numbers[0] % len(shape), math.lcm(*map(len, ranks)))
        ragged = numbers[1] % 4 if kind == "all_gatherv" and numbers[0] % len(shape) == 0 else 0
        operand = self._new_operand(shape, dtype, values, ragged)
        call = self._collective(kind, group, operand.value, numbers)
        if call is None or not self._try(call):
            # Small numbers of a narrow format may be too many to add; together, wide ones never are.
            del self._forms[operand.value]
            self._inputs.pop()
            operand = self._new_operand(shape, dtype, "wide" if kind in SUMS else values)
            call = self._collective(kind, group, operand.value, numbers)
            assert call is not None
            self._append(call)
        self._relayout(choose)

    def _collective(self, kind: str, group: int, name: str, numbers: Sequence[int]) -> Call | None:
        form = self._forms[name]
        if any(shape is None or math.prod(shape) > _LARGEST for shape in form.shapes):
            return None
        declared = self._scope.reduction_dtypes if kind in SUMS else self._scope.movement_dtypes
        shape = form.shapes[0]
        if form.dtype not in declared or shape is None:
            return None
        dim = 0
        if kind not in {"all_reduce", "broadcast"}:
            if not shape:
                return None
            dim = numbers[0] % (2 * len(shape))
            dim = dim if dim < len(shape) else dim - 2 * len(shape)
        call = Call(kind, group, (Operand(name),), root=numbers[1] % self._scope.world_size, dim=dim)
        return self._sized(call, form, numbers[1])

    def _sized(self, call: Call, form: Form, number: int) -> Call:
        ranks = self._groups[call.group].ranks
        if call.operation == "all_gatherv":
            own = [[_rows(form.shapes[rank], call.dim) for rank in group] for group in ranks]
            if number % 3 or any(len(set(sizes)) > 1 for sizes in own):
                return _with_sizes(call, own)
        if call.operation == "reduce_scatterv" and number % 4:
            totals = [_rows(form.shapes[group[0]], call.dim) for group in ranks]
            parts = [_parts(total, len(group), number) for total, group in zip(totals, ranks, strict=True)]
            return _with_sizes(call, parts)
        return call

    def _try(self, call: Call) -> bool:
        try:
            self._append(call)
        except InvalidProgramError:
            return False
        return True

    def _append(self, call: Call) -> None:
        made = dict(results_of(call, len(self.calls), self._groups[call.group].ranks, self._forms))
        self._forms.update(made)
        self.calls.append(call)

    def _relayout(self, choose: _Bytes) -> None:
        call = self.calls[-1]
        self.calls[-1] = _with_operands(call, tuple(self._layout(choose, each) for each in call.operands))

    # ---- calls that must be refused ----

    def _add_refused(self, group: int, choose: _Bytes) -> None:
        wrong = ("rank", "dimension", "parts")[choose.below(3)]
        size = math.lcm(*map(len, self._groups[group].ranks))
        operations = {
            "rank": ("broadcast", "gather"),
            "dimension": ("all_gather", "gather", "reduce_scatter"),
            "parts": ("reduce_scatter",),
        }[wrong]
        operation = operations[choose.below(len(operations))]
        if operation in self._scope.unsupported:
            return
        if wrong == "parts" and min(map(len, self._groups[group].ranks)) == 1:
            wrong = "dimension"
        rows = size + 1 if wrong == "parts" else size
        operand = self._new_operand((rows, 2))
        dim = (2, -3)[choose.below(2)] if wrong == "dimension" else 0
        self.calls.append(Call(operation, group, (operand,), dim=dim, wrong=wrong))

    # ---- messages, objects, dictionaries ----

    def _add_transfer(self, kind: str, group: int, choose: _Bytes) -> None:
        if kind == "barrier":
            self.calls.append(Call("barrier", group))
            return
        byte, number = choose.byte(), choose.byte()
        call = Call(
            kind,
            group,
            root=number % self._scope.world_size,
            peer=1 + number // 16 % 3,
            value=OBJECTS[byte % len(OBJECTS)] if kind != "send" else None,
            blocking=number % 3 != 1,
            default_peer=number % 2 == 0,
            repeats=1 + number % 3 if kind == "shift_tensor_dict" else 1,
        )
        if kind != "isend_object":
            # What one rank sends to another in a group arrives in order: what is on its way comes first.
            self._receive_all_of(group)
        else:
            self._pending.append(len(self.calls))
        if kind in {"send"} or kind.endswith("tensor_dict"):
            count = 1 if kind == "send" else byte % 3
            operands = tuple(self._moved(call, choose, byte + n) for n in range(count))
            call = _with_operands(call, operands, () if kind == "send" else ("b", "a")[:count])
        self._append(call)

    def _moved(self, call: Call, choose: _Bytes, byte: int) -> Operand:
        for name in itertools.islice(_rotated(self._earlier() if byte >= 112 else [], byte), 3):
            attempt = _with_operands(call, (Operand(name),), () if call.operation == "send" else ("a",))
            if self._forms[name].dtype in self._scope.movement_dtypes and self._fits(attempt):
                return self._layout(choose, Operand(name))
        shape = self._shape(choose)
        dtype, values = self._dtype_and_values(choose, summed=False)
        return self._layout(choose, self._new_operand(shape, dtype, values))

    def _fits(self, call: Call) -> bool:
        try:
            dict(results_of(call, 0, self._groups[call.group].ranks, self._forms))
        except InvalidProgramError:
            return False
        return True

    def _receive_all_of(self, group: int) -> None:
        while any(self.calls[number].group == group for number in self._pending):
            self._receive_object()

    def _receive_object(self) -> None:
        if self._pending:
            sent = self._pending.pop(0)
            self.calls.append(Call("recv_object", self.calls[sent].group, message=sent))


def _rotated(names: Sequence[str], by: int) -> Iterator[str]:
    start = by % len(names) if names else 0
    return itertools.chain(names[start:], names[:start])


def _rows(shape: Shape | None, dim: int) -> int:
    return 0 if shape is None else shape[dim]


def _parts(total: int, size: int, number: int) -> list[int]:
    """Cut a number into parts of different sizes, none among them."""
    cuts = sorted((number * (n + 3)) % (total + 1) for n in range(size - 1))
    return [stop - start for start, stop in itertools.pairwise([0, *cuts, total])]


def _divisible(shape: Shape, dim: int, by: int) -> Shape:
    changed = list(shape)
    changed[dim] *= by
    return tuple(changed)


def _with_sizes(call: Call, sizes: Sequence[Sequence[int]]) -> Call:
    return Call(**{**vars(call), "sizes": tuple(map(tuple, sizes))})


def _with_operands(call: Call, operands: tuple[Operand, ...], keys: tuple[str, ...] | None = None) -> Call:
    changed = {**vars(call), "operands": operands}
    return Call(**(changed if keys is None else {**changed, "keys": keys}))
