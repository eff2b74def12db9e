"""What random programs are drawn from."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .model import COLLECTIVES, Partition, Shape

SHAPES: tuple[Shape, ...] = (
    (1,), (2,), (3,), (), (4, 3), (0,), (7,), (2, 3, 4), (3, 0), (2, 3, 2, 5), (8,), (17,), (1, 5), (127,),
)  # fmt: skip
LARGE_SHAPES: tuple[Shape, ...] = ((1031,), (64, 65), (4099,), (65_539,))
OBJECTS = (
    *(0, None, "", "text ·", b"", (1, "a"), [1, [2.5]], {"b": (None,), "a": {}}),
    *(True, -(1 << 70), {1, 2}, b"x" * 3000),
)
KINDS = (
    *COLLECTIVES,
    *("send", "broadcast_object", "broadcast_tensor_dict", "send_object", "send_tensor_dict"),
    *("all_reduce", "all_gather", "reduce_scatter", "gather", "all_gatherv", "reduce_scatterv", "broadcast"),
    *("shift_tensor_dict", "isend_object", "recv_object", "broadcast_object_list", "barrier", "send"),
    *("refused", "destroy", "all_reduce", "all_gather", "reduce_scatter"),
)


@dataclass(frozen=True)
class Scope:
    """What programs may use: numbers of ranks, dtypes by name, operations that are not there.

    `own_groups` are made and destroyed within a program, which costs far more than its other calls.
    Without `layouts` calls take tensors as they are, and no copies in other layouts.
    """

    world_size: int = 2
    reduction_dtypes: tuple[str, ...] = ("float32", "bfloat16", "int64", "float16", "int8")
    movement_dtypes: tuple[str, ...] = ("float32", "bfloat16", "int64", "uint8", "bool")
    unsupported: tuple[str, ...] = ()
    own_groups: bool = True
    layouts: bool = True

    def of_collectives(self) -> Scope:
        """Return the scope of programs that can be one compiled function: collectives alone."""
        others = (kind for kind in dict.fromkeys(KINDS) if kind not in COLLECTIVES)
        return replace(self, unsupported=(*self.unsupported, *others), own_groups=False, layouts=False)


def partitions_of(world_size: int) -> tuple[Partition, ...]:
    """Return partitions to draw from, the world itself first: halves, single ranks, other orders."""
    ranks = tuple(range(world_size))
    half = world_size // 2
    found: list[Partition] = [(ranks,), (ranks[::-1],), tuple((rank,) for rank in ranks)]
    if world_size > 2:
        found += [(ranks[1:], ranks[:1]), (ranks[half:], ranks[:half]), (ranks[::2], ranks[1::2])]
        found += [((*ranks[1:], ranks[0]),), (ranks[1::2][::-1], ranks[::2][::-1])]
    return tuple(dict.fromkeys(found))
