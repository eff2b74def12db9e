"""Groups of one rank, whose shortcuts nothing else uses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ..coordinator import GroupCoordinator  # noqa: TID252
from .registry import Original, Patch, mutant

DEFECT = "one rank"


def alone(operation: str, result: Callable[[Any], Any]) -> Callable[[Patch], None]:
    """Make a change by which the operation gives `result` of what it should give, in a group of one."""

    def change(patch: Patch) -> None:
        @patch.around(GroupCoordinator, operation)
        def call(original: Original, self: GroupCoordinator, *args: Any, **kwargs: Any) -> Any:
            value = original(self, *args, **kwargs)
            return result(value) if self.world_size == 1 else value

    return change


def zeros(value: Any) -> Any:
    return [torch.zeros_like(each) for each in value] if isinstance(value, list) else torch.zeros_like(value)


def nothing(value: Any) -> None:
    return None


def an_empty_dictionary(value: Any) -> dict[str, Any]:
    return {}


for _operation, _kills, _result, _gives in [
    ("all_gather", ("VD-GRP-006",), lambda value: value.new_empty(0), "an empty tensor"),
    ("all_reduce", ("VD-GRP-006",), zeros, "zeros"),
    ("all_gatherv", ("VD-AGV-008",), zeros, "zeros"),
    ("reduce_scatterv", ("VD-RSV-008",), zeros, "zeros"),
    ("broadcast_object", ("VD-OBJ-009", "VD-GRP-006"), nothing, "None"),
    ("broadcast_tensor_dict", ("VD-TD-013", "VD-GRP-006"), nothing, "None"),
    ("send_tensor_dict", ("VD-TD-013",), nothing, "None"),
    ("recv_tensor_dict", ("VD-TD-013",), an_empty_dictionary, "an empty dictionary"),
]:
    mutant(
        DEFECT,
        *_kills,
        name=f"{_operation}_of_one_rank_gives_{_gives.replace('an ', '').replace(' ', '_').lower()}",
        summary=f"In a group of one rank {_operation} gives {_gives}.",
        world_size=1,
    )(alone(_operation, _result))
