"""A multi-rank program as data: the same for every rank, with inputs that each rank makes by itself."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

Shape = tuple[int, ...]
Partition = tuple[tuple[int, ...], ...]

AS_IT_IS = "as it is"
COLLECTIVES = (
    "all_reduce",
    "all_gather",
    "reduce_scatter",
    "broadcast",
    "gather",
    "all_gatherv",
    "reduce_scatterv",
)
SUMS = frozenset({"all_reduce", "reduce_scatter", "reduce_scatterv"})
ROOTED = frozenset(
    {"broadcast", "gather", "broadcast_object", "broadcast_object_list", "broadcast_tensor_dict"}
)
WRONG = ("rank", "dimension", "parts", "destroyed")
"""What may be wrong in a call that every rank must refuse: a root outside the group, a dimension that the
tensor does not have, a dimension that has no equal parts, groups that were destroyed before."""


@dataclass(frozen=True)
class Input:
    """A tensor that every rank makes by itself, other values on each.

    `values`: "small" integers, "wide" ones whose sum over the ranks takes all bits of the format, "bits" of
    any pattern, NaNs among them, or "rounding" ones, whose sum must round. With `ragged` from 1 on, global
    rank r has (r + ragged) modulo (world size + 1) rows instead of those of `shape`.
    """

    shape: Shape
    dtype: str = "float32"
    values: str = "small"
    ragged: int = 0

    def shape_at(self, rank: int, world_size: int) -> Shape:
        """Return the shape at a global rank."""
        if not self.ragged:
            return self.shape
        return ((rank + self.ragged) % (world_size + 1), *self.shape[1:])


@dataclass(frozen=True)
class Operand:
    """A tensor that a call takes: input n is "xn", the result of call n is "yn", that of its key k "yn_k".

    `layout` "as it is" passes the tensor itself; any other one (see `judge.LAYOUTS`) a copy in that layout.
    """

    value: str
    layout: str = AS_IT_IS


@dataclass(frozen=True)
class Call:
    """One operation, by the ranks of all groups of a partition at once.

    `root` is the source or destination in each group, `peer` the distance from it to the rank that receives,
    both modulo the group's size. `sizes` has one entry for each group. `message` is the number of the call
    that sent what this one receives. `repeats` shifts as many dictionaries before any is received.
    `wrong` says what is wrong in a call that every rank must refuse.
    """

    operation: str
    group: int = 0
    operands: tuple[Operand, ...] = ()
    root: int = 0
    peer: int = 1
    dim: int = 0
    sizes: tuple[tuple[int, ...], ...] | None = None
    value: Any = None
    keys: tuple[str, ...] = ()
    blocking: bool = True
    default_peer: bool = False
    repeats: int = 1
    message: int = 0
    wrong: str = ""

    def pair(self, size: int) -> tuple[int, int] | None:
        """Return the ranks in a group of `size` that send and receive; None where a rank is alone."""
        if size == 1:
            return None
        source = self.root % size
        return source, (source + 1 + (self.peer - 1) % (size - 1)) % size

    def distance(self, size: int) -> int:
        """Return by how many ranks a shift moves in a group of `size` ranks; 0 where a rank is alone."""
        return 0 if size == 1 else 1 + (self.peer - 1) % (size - 1)


@dataclass(frozen=True)
class Groups:
    """The groups of one partition of the world. `own` ones are made in the program and destroyed in it."""

    ranks: Partition
    own: bool = False


@dataclass(frozen=True)
class Program:
    """Calls in the order in which every rank makes them. `groups[0]` is the world."""

    world_size: int
    groups: tuple[Groups, ...]
    inputs: tuple[Input, ...]
    calls: tuple[Call, ...]
    seed: int = 0

    def group_of(self, call: Call, rank: int) -> tuple[int, ...]:
        """Return the global ranks of the group in which a rank makes a call."""
        return next(ranks for ranks in self.groups[call.group].ranks if rank in ranks)

    def to_json(self) -> str:
        """Return the program as text, which `from_json` reads. Python values are written as literals."""
        data = asdict(self)
        for call in data["calls"]:
            call["value"] = repr(call["value"])
        return json.dumps(data, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Program:
        """Read a program. Raises ValueError for a text that is none."""
        try:
            data = json.loads(text)
            return cls(
                world_size=data["world_size"],
                groups=tuple(Groups(_tuples(each["ranks"]), each["own"]) for each in data["groups"]),
                inputs=tuple(Input(**{**each, "shape": tuple(each["shape"])}) for each in data["inputs"]),
                calls=tuple(_call(each) for each in data["calls"]),
                seed=data["seed"],
            )
        except (KeyError, TypeError, SyntaxError, json.JSONDecodeError) as error:
            raise ValueError(
                f"this is no program ({type(error).__name__}: {error}): {text[:200]!r}"
            ) from None


def _call(data: Mapping[str, Any]) -> Call:
    return Call(
        **{
            **data,
            "operands": tuple(Operand(**each) for each in data["operands"]),
            "sizes": None if data["sizes"] is None else _tuples(data["sizes"]),
            "value": ast.literal_eval(data["value"]),
            "keys": tuple(data["keys"]),
        }
    )


def _tuples(lists: Any) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(each) for each in lists)
