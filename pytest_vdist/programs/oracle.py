"""What every rank must get from every call of a program: all ranks at once, in one process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from pytest_vdist.judge import oracle as collectives
from pytest_vdist.judge.bounds import SumBound, sum_bound

from .forms import Form, forms_of, operands_by_key, routes
from .inputs import input_of, object_of
from .model import COLLECTIVES, SUMS, Call, Program

ByRank = list[torch.Tensor | None]


@dataclass(frozen=True, eq=False)
class ExactTensor:
    """A tensor that must arrive bit by bit; with `zeros_equal` the signs of zeros do not count."""

    tensor: torch.Tensor
    zeros_equal: bool = False


@dataclass(frozen=True, eq=False)
class Within:
    """A tensor of sums that round: every element lies within its bound."""

    bound: SumBound
    dtype: torch.dtype


@dataclass(frozen=True)
class Refusal:
    """An error, which every rank must raise."""


@dataclass(frozen=True, eq=False)
class Value:
    """A Python value; tensors in it must agree bit by bit."""

    value: Any


Expected = ExactTensor | Within | Refusal | Value | None
"""What one rank must see; None where it has no part in the call."""


class Oracle:
    """Interprets a program."""

    def __init__(self, program: Program, accumulate: dict[str, str] | None = None) -> None:
        """Check the program. `accumulate` maps names of dtypes to declared accumulators.

        Raises InvalidProgramError for a program whose calls have no one right result.
        """
        self.program = program
        self.forms = forms_of(program)
        self._accumulate = accumulate or {}
        self._tensors: dict[str, ByRank] = {}

    def expectations(self) -> list[list[Expected]]:
        """Return what each rank must see, by call and global rank."""
        return [self._expect(call, number) for number, call in enumerate(self.program.calls)]

    def tensors(self, name: str) -> ByRank:
        """Return a value by global rank."""
        if name.startswith("x") and name not in self._tensors:
            ranks = range(self.program.world_size)
            self._tensors[name] = [input_of(self.program, int(name[1:]), rank) for rank in ranks]
        return self._tensors[name]

    def _expect(self, call: Call, number: int) -> list[Expected]:
        expected: list[Expected] = [None] * self.program.world_size
        if call.wrong:
            return [Refusal()] * self.program.world_size
        for index, ranks in enumerate(self.program.groups[call.group].ranks):
            of_group = self._expect_in_group(call, number, index, ranks)
            for rank, each in zip(ranks, of_group, strict=True):
                expected[rank] = each
        return expected

    def _expect_in_group(self, call: Call, number: int, index: int, ranks: tuple[int, ...]) -> list[Expected]:
        if call.operation in COLLECTIVES:
            return self._collective(call, number, index, ranks)
        if call.operation == "send":
            return self._sent_tensor(call, number, ranks)
        if call.operation.endswith("tensor_dict"):
            return self._dictionary(call, number, ranks)
        return self._object(call, ranks)

    def _collective(self, call: Call, number: int, index: int, ranks: tuple[int, ...]) -> list[Expected]:
        name = call.operands[0].value
        inputs = [_held(self.tensors(name)[rank]) for rank in ranks]
        if call.operation in SUMS and self.forms[name].rounding:
            return self._within(call, inputs, index)
        results = getattr(collectives, call.operation)(inputs, **_arguments(call, len(ranks), index))
        self._keep(f"y{number}", ranks, results)
        return [
            Value(None) if each is None else ExactTensor(each, _is_number(self.forms[name]))
            for each in results
        ]

    def _within(self, call: Call, inputs: list[torch.Tensor], index: int) -> list[Expected]:
        arguments = _arguments(call, len(inputs), index)
        addends = (
            [inputs] * len(inputs)
            if call.operation == "all_reduce"
            else collectives.scattered(inputs, **arguments)
        )
        dtype = inputs[0].dtype
        accumulate = self._accumulate.get(str(dtype).removeprefix("torch."), "native")
        return [Within(sum_bound(own, dtype, accumulate), dtype) for own in addends]

    def _sent_tensor(self, call: Call, number: int, ranks: tuple[int, ...]) -> list[Expected]:
        arrived = self._arrivals(call, call.operands[0].value, f"y{number}", ranks)
        return [ExactTensor(_held(arrived[rank])) if rank in arrived else None for rank in ranks]

    def _dictionary(self, call: Call, number: int, ranks: tuple[int, ...]) -> list[Expected]:
        arrived = [
            (key, self._arrivals(call, operand.value, f"y{number}_{index}", ranks))
            for index, (key, operand) in enumerate(operands_by_key(call))
        ]
        sources = {destination: source for source, destination in routes(call, ranks)}
        expected: list[Expected] = []
        for rank in ranks:
            if rank not in sources:
                expected.append(None)
                continue
            tensors = {key: by_rank[rank] for key, by_rank in arrived}
            contents = [
                {**tensors, "object": object_of(call.value, sources[rank], repeat)}
                for repeat in range(call.repeats)
            ]
            expected.append(Value(contents if call.operation == "shift_tensor_dict" else contents[0]))
        return expected

    def _object(self, call: Call, ranks: tuple[int, ...]) -> list[Expected]:
        if call.operation in {"barrier", "isend_object", "destroy"}:
            return [None] * len(ranks)
        sent = self.program.calls[call.message] if call.operation == "recv_object" else call
        sources = {destination: source for source, destination in routes(sent, ranks)}
        objects = {rank: object_of(sent.value, source) for rank, source in sources.items()}
        if call.operation == "broadcast_object_list":
            return [Value([objects[rank], None]) for rank in ranks]
        return [Value(objects[rank]) if rank in objects else None for rank in ranks]

    def _arrivals(
        self, call: Call, value: str, name: str, ranks: tuple[int, ...]
    ) -> dict[int, torch.Tensor | None]:
        tensors = self.tensors(value)
        arrived = {destination: tensors[source] for source, destination in routes(call, ranks)}
        self._keep(name, tuple(arrived), list(arrived.values()))
        return arrived

    def _keep(self, name: str, ranks: tuple[int, ...], tensors: list[torch.Tensor | None]) -> None:
        kept = self._tensors.setdefault(name, [None] * self.program.world_size)
        for rank, tensor in zip(ranks, tensors, strict=True):
            kept[rank] = tensor


def _arguments(call: Call, size: int, index: int) -> dict[str, Any]:
    """Return the arguments of the oracle's function after the tensors."""
    arguments: dict[str, Any] = {}
    if call.operation not in {"all_reduce", "broadcast"}:
        arguments["dim"] = call.dim
    if call.operation == "gather":
        arguments["dst"] = call.root % size
    if call.operation == "broadcast":
        arguments["src"] = call.root % size
    if call.operation in {"all_gatherv", "reduce_scatterv"}:
        arguments["sizes"] = None if call.sizes is None else call.sizes[index]
    return arguments


def _is_number(form: Form) -> bool:
    return form.magnitude is not None


def _held(tensor: torch.Tensor | None) -> torch.Tensor:
    if tensor is None:
        raise ValueError("a rank does not hold its input: the program is not valid")
    return tensor
