"""Simulated ranks: threads whose collectives are the oracle's, so that any function can be worked out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from . import oracle

Groups = list[list[int]]
_PATIENCE = 60.0


class SimulatedGroup:
    """One simulated rank's view of its group: results are fresh, but for the methods that end in `_`.

    `ranks` are the members, `rank` is this one. All ranks call the same methods in the same order, also those
    of other groups. A rank that does not come within a minute breaks the simulation.
    """

    device = torch.device("cpu")

    def __init__(self, rank: int, groups: Groups, meeting: _Meeting) -> None:
        self.rank = rank
        self.ranks = next(list(ranks) for ranks in groups if rank in ranks)
        self.world_size = len(self.ranks)
        self.rank_in_group = self.ranks.index(rank)
        self._meeting = meeting

    def all_reduce(self, input_: torch.Tensor) -> torch.Tensor:
        return self._mine(oracle.all_reduce, input_)

    def all_gather(self, input_: torch.Tensor, dim: int = -1) -> torch.Tensor:
        return self._mine(oracle.all_gather, input_, dim)

    def all_gatherv(self, input_: torch.Tensor, dim: int, sizes: Sequence[int]) -> torch.Tensor:
        return self._mine(oracle.all_gatherv, input_, dim, sizes)

    def reduce_scatter(self, input_: torch.Tensor, dim: int = -1) -> torch.Tensor:
        return self._mine(oracle.reduce_scatter, input_, dim)

    def reduce_scatterv(self, input_: torch.Tensor, dim: int, sizes: Sequence[int]) -> torch.Tensor:
        return self._mine(oracle.reduce_scatterv, input_, dim, sizes)

    def gather(self, input_: torch.Tensor, dst: int = 0, dim: int = -1) -> torch.Tensor | None:
        inputs = self._meeting.exchange(self.rank, input_, self.ranks)
        mine = oracle.gather(inputs, dst, dim)[self.rank_in_group]
        return None if mine is None else mine.clone()

    def broadcast(self, input_: torch.Tensor, src: int = 0) -> torch.Tensor:
        return input_.copy_(self._mine(oracle.broadcast, input_, src))

    def all_reduce_(self, tensor: torch.Tensor) -> None:
        tensor.copy_(self._mine(oracle.all_reduce, tensor))

    def all_gather_(self, output: torch.Tensor, input_: torch.Tensor) -> None:
        output.copy_(self._mine(oracle.all_gather, input_, 0))

    def reduce_scatter_(self, output: torch.Tensor, input_: torch.Tensor) -> None:
        output.copy_(self._mine(oracle.reduce_scatter, input_, 0))

    def all_to_all_(self, output: torch.Tensor, input_: torch.Tensor) -> None:
        inputs = self._meeting.exchange(self.rank, input_, self.ranks)
        parts = [each.tensor_split(self.world_size)[self.rank_in_group] for each in inputs]
        output.copy_(torch.cat(parts))

    def _mine(self, collective: Callable[..., Any], input_: torch.Tensor, *args: Any) -> torch.Tensor:
        inputs = self._meeting.exchange(self.rank, input_, self.ranks)
        mine: torch.Tensor = collective(inputs, *args)[self.rank_in_group]
        return mine.clone()


class _Meeting:
    """Where the ranks lay down their tensors and pick up those of others."""

    def __init__(self, world_size: int) -> None:
        self.barrier = threading.Barrier(world_size, timeout=_PATIENCE)
        self._laid_down: dict[int, torch.Tensor] = {}

    def exchange(self, rank: int, tensor: torch.Tensor, ranks: Sequence[int]) -> list[torch.Tensor]:
        self._laid_down[rank] = tensor.detach().clone()
        self.barrier.wait()
        picked_up = [self._laid_down[member] for member in ranks]
        self.barrier.wait()
        return picked_up


def simulate(
    function: Callable[..., Any],
    args_by_rank: Sequence[Sequence[torch.Tensor]],
    layouts: Sequence[Groups],
) -> list[Any]:
    """Call `function(*groups, *args)` on a simulated rank for each of `args_by_rank`; results by rank.

    There is a group for each of `layouts`, whose lists name every rank once. Raises what a rank raises.
    """
    world_size = len(args_by_rank)
    meeting = _Meeting(world_size)

    def call(rank: int) -> Any:
        groups = [SimulatedGroup(rank, layout, meeting) for layout in layouts]
        try:
            return function(*groups, *args_by_rank[rank])
        except BaseException:
            meeting.barrier.abort()
            raise

    with ThreadPoolExecutor(world_size) as threads:
        calls = [threads.submit(call, rank) for rank in range(world_size)]
    errors = [error for error in (each.exception() for each in calls) if error is not None]
    for error in sorted(errors, key=lambda each: isinstance(each, threading.BrokenBarrierError)):
        raise error
    return [each.result() for each in calls]
