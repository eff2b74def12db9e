"""What every rank can say of its part of a model: that it is the right part of the right whole."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import torch

from .experts import Experts
from .layouts import Layout, ParallelGroup, ParallelGroups
from .stage import Stage

Tensor = torch.Tensor


def layout_differences(stage: Stage, prompts: Tensor) -> list[str]:
    """Compare model, layout and prompts of all ranks, and return what differs."""
    plan = {"model": stage.config, "layout": str(stage.layout), "prompts": prompts.tolist()}
    return [
        f"rank {rank} has another {key} than rank 0: {others[key]!r}, not {first[key]!r}"
        for rank, (first, others) in _with_first(agree(stage.groups.world, plan))
        for key in plan
        if others[key] != first[key]
    ]


def parameter_differences(stage: Stage) -> list[str]:
    """Put the parts of every weight together and compare them with the whole model's, bit by bit.

    Returns what is wrong, on this rank or between ranks.
    """
    whole = _whole_of(stage)
    digests = {name: _digest(full) for name, full in _gathered(stage, whole)}
    expected = {name: _digest(full) for name, full in whole.items() if name in digests}
    wrong = [
        f"the parts of {name} are not those of the whole weight"
        for name, digest in digests.items()
        if digest != expected[name]
    ]
    for rank, (first, others) in _with_first(agree(stage.groups.world, digests)):
        different = [name for name in first.keys() & others.keys() if first[name] != others[name]]
        wrong += [f"rank {rank} has another {name} than rank 0" for name in sorted(different)]
    return wrong


def agree(world: ParallelGroup, value: Any) -> list[Any]:
    """Return every rank's value, by rank."""
    ranks = range(world.world_size)
    return [world.broadcast_object(value if rank == world.rank_in_group else None, rank) for rank in ranks]


def _with_first(values: list[Any]) -> Iterable[tuple[int, tuple[Any, Any]]]:
    return ((rank, (values[0], value)) for rank, value in enumerate(values) if rank)


@dataclass(frozen=True)
class _Alone:
    """A group of one rank, in which nobody talks: enough to make a whole model."""

    device: torch.device
    world_size: int = 1
    rank_in_group: int = 0


def _whole_of(stage: Stage) -> dict[str, Tensor]:
    """Return the weights of the whole model by name."""
    alone: Any = _Alone(torch.device("cpu"))
    groups = ParallelGroups(alone, alone, alone, alone, alone)
    whole = Stage(stage.config, Layout(), groups, prompt_count=1)
    return {name: each.detach() for name, each in whole.named_parameters()}


def _gathered(stage: Stage, whole: dict[str, Tensor]) -> Iterable[tuple[str, Tensor]]:
    for path, module in stage.named_modules():
        shared_by_experts = isinstance(module, Experts) and module.expert_parallel
        for name, own in module.named_parameters(recurse=False):
            full_name = _name_in_whole(f"{path}.{name}", stage)
            full = whole[full_name]
            group = stage.groups.expert if shared_by_experts and name != "router" else stage.groups.tensor
            yield full_name, _put_together(own.detach(), full, group)


def _put_together(own: Tensor, full: Tensor, group: ParallelGroup) -> Tensor:
    split = [dim for dim in range(full.dim()) if own.shape[dim] != full.shape[dim]]
    if not split:
        return own
    # Rows that were added to divide the weight are at the end.
    return group.all_gather(own, split[0]).narrow(split[0], 0, full.shape[split[0]])


def _name_in_whole(name: str, stage: Stage) -> str:
    """Return the name that a weight of this stage has where all layers are in one."""
    parts = name.split(".")
    if parts[0] == "layers":
        parts[1] = str(stage.numbers[int(parts[1])])
    return ".".join(parts)


def _digest(tensor: Tensor) -> str:
    raw = cast("Any", tensor.cpu().contiguous().view(torch.uint8))
    return hashlib.sha256(bytes(raw.flatten().tolist())).hexdigest()
