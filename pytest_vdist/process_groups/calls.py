"""One call of torch.distributed by every rank of a group: what each passes, how it is made, what is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist

from pytest_vdist.judge import describe_call, movement_input

from . import oracle
from .forms import FORMS, At, Form, Passed, Shape

OPERATIONS = tuple(FORMS)
ROOTED = tuple(name for name, form in FORMS.items() if form.rooted)
REDUCING = tuple(name for name, form in FORMS.items() if form.reducing)


@dataclass(frozen=True)
class Call:
    """One call of `operation`, a function of torch.distributed.

    `shape` is that of one part. `parts` says how the parts of ranks differ: "equal", "unequal" along
    dimension 0, or "stacked": equal, in a tensor with a dimension of its own for the rank. `root` is a rank
    of the group, passed as such or, `root_is_global`, as the global rank. `layout` is that of tensors which
    are read, or read and written; `output_layout` that of tensors which are only written.
    """

    operation: str
    shape: Shape
    dtype: torch.dtype = torch.float32
    reduction: str = "sum"
    parts: str = "equal"
    root: int = 0
    root_is_global: bool = False
    layout: str = "contiguous"
    output_layout: str = "contiguous"
    seed: int = 0

    @property
    def form(self) -> Form:
        return FORMS[self.operation]

    @property
    def needs(self) -> tuple[str, ...]:
        """What a backend may declare not to have, of that which the call needs."""
        special = [self.parts] if self.parts != "equal" else []
        special += [self.reduction] if self.form.reducing else []
        return (self.operation, *special, *(f"{self.operation}:{each}" for each in special))

    def with_other_values(self, number: int) -> Call:
        return replace(self, seed=self.seed + number)

    def inputs(self, rank: int, ranks: int) -> list[torch.Tensor]:
        """Return what that rank of the group passes, as contiguous CPU tensors."""
        shapes = self.form.inputs(At(self, rank, ranks))
        return [self._values(shape, rank, ranks, place) for place, shape in enumerate(shapes)]

    def outputs(self, rank: int, ranks: int) -> list[Shape]:
        """Return the shapes of the tensors that the call only writes, on that rank."""
        return self.form.outputs(At(self, rank, ranks))

    def make(
        self,
        group: dist.ProcessGroup,
        inputs: list[torch.Tensor],
        outputs: list[torch.Tensor],
        *,
        async_op: bool = False,
    ) -> Any:
        """Make the call in a rank of the group. Returns the handle if `async_op`, else None."""
        at = At(self, dist.get_rank(group), dist.get_world_size(group))
        return self.form.make(Passed(at, inputs, outputs, {"group": group, "async_op": async_op}))

    def results(self, ranks: int) -> Sequence[list[torch.Tensor] | None]:
        """Return, by rank, the tensors that must arrive there or that are reduced there; None: nothing is."""
        return self.form.moved(self, [self.inputs(rank, ranks) for rank in range(ranks)])

    def __str__(self) -> str:
        given: dict[str, object] = {"shape": self.shape, "dtype": self.dtype}
        given |= {"op": self.reduction} if self.form.reducing else {}
        given |= {"parts": self.parts} if self.parts != "equal" else {}
        given |= {"root": self.root} if self.form.rooted else {}
        for name in ("layout", "output_layout"):
            given |= {name: getattr(self, name)} if getattr(self, name) != "contiguous" else {}
        return describe_call(self.operation, **given)

    def _values(self, shape: Shape, rank: int, ranks: int, place: int) -> torch.Tensor:
        seed = 100 * self.seed + place
        if self.form.reducing:
            return oracle.addend(shape, self.dtype, self.reduction, rank=rank, ranks=ranks, seed=seed)
        return movement_input(shape, self.dtype, rank=rank, seed=seed)


def flat(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the elements of the tensors, one after the other."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])
