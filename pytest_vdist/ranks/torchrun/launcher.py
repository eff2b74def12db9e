"""Ranks of tests on the processes of torchrun: the first ones of each node, node by node."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pytest_vdist.ranks.rank import Rank
from pytest_vdist.ranks.torchrun.controller import Controller, Member
from pytest_vdist.ranks.torchrun.own_ranks import OwnRanks
from pytest_vdist.ranks.world import Rendezvous


class TorchrunLauncher:
    """Starts ranks of one backend at torchrun's processes; rank n of every team at the nth of them."""

    def __init__(
        self, backend: str, controller: Controller, members: Sequence[Member], own_ranks: OwnRanks
    ) -> None:
        self._backend = backend
        self._controller = controller
        self._members = members
        self._own_ranks = own_ranks
        controller.prepare(backend)
        self._own = own_ranks.launcher(backend, controller.interface)

    @property
    def places(self) -> int | None:
        return len(self._members)

    def endpoint(self) -> tuple[str, int]:
        return self._own.endpoint()

    def new_store(self) -> Any:
        return self._own.new_store()

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Each process prepares its own ranks."""
        yield

    def start(self, rank: int, world_size: int, devices: Sequence[str]) -> Rank:
        del devices  # each process has its own
        rendezvous = self._rendezvous(rank, world_size)
        member = self._members[rank]
        if member.control is None:
            return self._own_ranks.start(self._backend, rendezvous, self._controller.interface)
        return self._controller.launch(member, self._backend, rendezvous)

    def _rendezvous(self, rank: int, world_size: int) -> Rendezvous:
        member = self._members[rank]
        neighbours = [other for other in self._members[:world_size] if other.node == member.node]
        host, port = self.endpoint()
        return Rendezvous(
            host, port, rank, world_size, neighbours.index(member), len(neighbours), member.node
        )
