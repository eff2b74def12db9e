"""The reference, changed in what the specification leaves open: the suites must pass on each of these.

Entered as any implementation under test: `--vdist-impl=tests/conforming/variants.py:ring`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch

from pytest_vdist.implementations.protocol import Capabilities, Coordinator, InitSettings
from pytest_vdist.implementations.reference import ReferenceImplementation
from pytest_vdist.reference_impl.coordinator import GroupCoordinator
from pytest_vdist.reference_impl.mutants.registry import Original, Patch

Tensor = torch.Tensor
Change = Callable[[Patch], None]
Rows = list[Tensor]
HALVES = (torch.float16, torch.bfloat16)
_applied: set[str] = set()


class Variant:
    """The reference with changes, made once in every rank."""

    def __init__(self, name: str, *changes: Change, wide: bool = False, in_place: bool = False) -> None:
        self.name = name
        self._changes = changes
        self._wide = wide
        self._in_place = ("all_reduce",) if in_place else ()
        self._reference = ReferenceImplementation()

    def capabilities(self, device_type: str) -> Capabilities:
        """Declare what the reference does; with `wide`, an fp32 accumulator for 16-bit floats.

        No operators: theirs are bound to schemas and strides, of which these changes know nothing.
        """
        claims = vars(self._reference.capabilities(device_type))
        accumulate = dict(WIDE) if self._wide else {}
        return Capabilities(
            **claims
            | {"accumulate": accumulate, "operators": {}, "compile_modes": ("eager",)}
            | {"in_place": self._in_place}
        )

    def init(self, settings: InitSettings) -> None:
        if self.name not in _applied:
            _applied.add(self.name)
            for change in self._changes:
                change(Patch())
        self._reference.init(settings)

    def coordinator(self, group_ranks: list[list[int]], *, name: str, **options: Any) -> Coordinator:
        return self._reference.coordinator(group_ranks, name=name, **options)

    def destroy(self) -> None:
        self._reference.destroy()


WIDE = {"float16": "fp32", "bfloat16": "fp32"}


# ---- the order of additions ----


def in_ring(rows: Rows) -> Tensor:
    """Add chunk by chunk, each beginning with another rank, and round every partial sum."""
    chunks = [list(row.chunk(len(rows))) for row in rows]
    sums = []
    for start in range(len(chunks[0])):
        total = chunks[start % len(rows)][start].clone()
        for step in range(1, len(rows)):
            total += chunks[(start + step) % len(rows)][start]
        sums.append(total)
    return torch.cat(sums) if sums else rows[0].clone()


def in_wide_tree(rows: Rows) -> Tensor:
    """Add neighbours, then neighbouring sums, 16-bit floats in fp32, and round once."""
    accumulator = torch.float32 if rows[0].dtype in HALVES else rows[0].dtype
    level = [row.to(accumulator) for row in rows]
    while len(level) > 1:
        pairs = [level[at] + level[at + 1] for at in range(0, len(level) - 1, 2)]
        level = pairs + level[2 * len(pairs) :]
    return level[0].to(rows[0].dtype)


def by_recursive_doubling(rows: Rows) -> Tensor:
    """Add ranks whose numbers differ in the highest bit, then in the next; those beyond first."""
    power = 1 << (len(rows).bit_length() - 1)
    level = [row.clone() for row in rows[:power]]
    for at, row in enumerate(rows[power:]):
        level[at] = level[at] + row
    while len(level) > 1:
        half = len(level) // 2
        level = [level[at] + level[at + half] for at in range(half)]
    return level[0]


def sums_by(order: Callable[[Rows], Tensor]) -> Change:
    """Gather every rank's input and let each rank add them up in that order, all ranks alike."""

    def change(patch: Patch) -> None:
        @patch.around(GroupCoordinator, "all_reduce")
        def all_reduce(original: Original, self: GroupCoordinator, input_: Tensor) -> Tensor:
            if torch.compiler.is_compiling() or self.world_size == 1 or not input_.numel():
                return original(self, input_)
            checked = original(self, input_)
            rows = list(self.all_gather(input_.detach().reshape(1, -1), dim=0))
            return order(rows).view(checked.shape)

        @patch.around(GroupCoordinator, "reduce_scatter")
        def reduce_scatter(
            original: Original, self: GroupCoordinator, input_: Tensor, dim: int = -1
        ) -> Tensor:
            checked: Tensor = original(self, input_, dim)
            if torch.compiler.is_compiling() or self.world_size == 1 or not input_.numel():
                return checked
            total = self.all_reduce(input_)
            size = checked.shape[dim]
            return total.narrow(dim, self.rank_in_group * size, size).contiguous()

        @patch.around(GroupCoordinator, "reduce_scatterv")
        def reduce_scatterv(
            original: Original,
            self: GroupCoordinator,
            input_: Tensor,
            dim: int = -1,
            sizes: Sequence[int] | None = None,
        ) -> Tensor:
            checked: Tensor = original(self, input_, dim, sizes)
            if torch.compiler.is_compiling() or self.world_size == 1 or not input_.numel():
                return checked
            equal = [input_.shape[dim] // self.world_size] * self.world_size
            own = self.all_reduce(input_).split_with_sizes(list(sizes or equal), dim)[self.rank_in_group]
            return own.contiguous()

    return change


# ---- memory ----


def one_rank_returns_its_input(patch: Patch) -> None:
    """In a group of one rank the result is the input."""
    for operation in ("all_reduce", "all_gather", "reduce_scatter", "gather"):

        @patch.around(GroupCoordinator, operation)
        def call(
            original: Original, self: GroupCoordinator, input_: Tensor, *args: Any, **kwargs: Any
        ) -> Any:
            result = original(self, input_, *args, **kwargs)
            return input_ if self.world_size == 1 and not torch.compiler.is_compiling() else result


def results_have_other_strides(patch: Patch) -> None:
    """Results of several dimensions lie in memory with the first dimension innermost."""
    for operation in ("all_gather", "all_reduce", "reduce_scatter", "gather"):

        @patch.around(GroupCoordinator, operation)
        def call(original: Original, self: GroupCoordinator, *args: Any, **kwargs: Any) -> Any:
            result = original(self, *args, **kwargs)
            if not isinstance(result, Tensor) or result.dim() < 2 or torch.compiler.is_compiling():
                return result
            backwards = tuple(range(result.dim()))[::-1]
            return result.permute(backwards).clone(memory_format=torch.contiguous_format).permute(backwards)


def sums_are_written_into_the_input(patch: Patch) -> None:
    """Let inputs hold the sum afterwards, unless their elements share memory."""

    @patch.around(GroupCoordinator, "all_reduce")
    def all_reduce(original: Original, self: GroupCoordinator, input_: Tensor) -> Tensor:
        result: Tensor = original(self, input_)
        if torch.compiler.is_compiling() or 0 in input_.stride():
            return result
        input_.detach().copy_(result)
        return input_


# ---- time and transport ----


def some_ranks_are_slow(patch: Patch) -> None:
    """Before every operation a rank waits for up to 6 ms, which rank how long changes from call to call."""
    for operation in ("all_reduce", "all_gather", "broadcast", "send", "recv", "barrier", "broadcast_object"):

        @patch.around(GroupCoordinator, operation)
        def call(original: Original, self: GroupCoordinator, *args: Any, **kwargs: Any) -> Any:
            if not torch.compiler.is_compiling():
                calls = vars(self)["_calls"] = vars(self).get("_calls", 0) + 1
                threading.Event().wait((self.rank_in_group + calls) % 4 * 0.002)
            return original(self, *args, **kwargs)


def messages_are_late(patch: Patch) -> None:
    """Whoever receives comes to it a moment late."""
    for operation in ("recv_object", "recv_tensor_dict", "irecv_tensor_dict", "recv"):

        @patch.around(GroupCoordinator, operation)
        def call(original: Original, self: GroupCoordinator, *args: Any, **kwargs: Any) -> Any:
            threading.Event().wait(0.003)
            return original(self, *args, **kwargs)


def broadcasts_go_in_small_chunks(patch: Patch) -> None:
    """Contiguous tensors are broadcast 1000 elements at a time."""

    @patch.around(GroupCoordinator, "broadcast")
    def broadcast(original: Original, self: GroupCoordinator, input_: Tensor, src: int = 0) -> Tensor:
        if torch.compiler.is_compiling() or input_.numel() <= 1000 or not input_.is_contiguous():
            return original(self, input_, src)
        for chunk in torch.split(input_.view(-1), 1000):
            original(self, chunk, src)
        return input_


def ring() -> Variant:
    return Variant("ring", sums_by(in_ring), one_rank_returns_its_input, some_ranks_are_slow)


def wide_tree() -> Variant:
    return Variant(
        "wide tree", sums_by(in_wide_tree), results_have_other_strides, messages_are_late, wide=True
    )


def doubling() -> Variant:
    return Variant("doubling", sums_by(by_recursive_doubling), broadcasts_go_in_small_chunks)


def in_place() -> Variant:
    return Variant("in place", sums_are_written_into_the_input, in_place=True)
