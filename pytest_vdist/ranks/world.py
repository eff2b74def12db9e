"""The process groups of a rank: made when a run asks for another world, kept while they are clean."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

import torch.distributed as dist

from pytest_vdist.ranks import _compat
from pytest_vdist.ranks.context import set_group_limits
from pytest_vdist.ranks.in_place import KeepsInputs
from pytest_vdist.ranks.messages import Traffic, WorldSpec

if TYPE_CHECKING:
    from pytest_vdist.implementations.protocol import Coordinator, Implementation
    from pytest_vdist.ranks.watch import ProcessGroupWatch


@dataclass(frozen=True)
class Rendezvous:
    """Where the ranks of one team meet: the controller's store, and this rank's numbers."""

    host: str
    port: int
    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    node: int = 0


class World:
    """This rank's view of the current world. At most one is alive per process."""

    def __init__(self, rendezvous: Rendezvous, watch: ProcessGroupWatch) -> None:
        """Connect to the controller's store.

        Torch looks up a name for that. Ranks start one after the other; if all of them connected when their
        first group is made, a name server that drops some of the questions would cost 5 s.
        """
        self._rendezvous = rendezvous
        self._watch = watch
        self._store = _compat.TCPStore(
            rendezvous.host, rendezvous.port, is_master=False, wait_for_workers=False
        )
        self._serial = -1
        self._spec: WorldSpec | None = None
        self._known_groups: set[int] = set()
        self._coordinators: dict[str, Coordinator] = {}
        self._graveyard = _Graveyard()
        self.implementation: Implementation | None = None
        self._in_place: tuple[str, ...] = ()

    def enter(self, spec: WorldSpec, serial: int, master_port: int) -> None:
        """Make sure that the world `serial` stands; replaces another one. Every rank must call it."""
        self._watch.begin_run()
        if serial == self._serial:
            return
        self.retire()
        self._serial, self._spec = serial, spec
        set_group_limits(spec.timeout, spec.cpu_timeout)
        self._announce(master_port)
        if spec.implementation is not None:
            self._init_implementation(spec)
        elif spec.process_group_backend is not None:
            self._init_torch(spec.process_group_backend, spec.timeout)
        self._note_groups()

    def retire(self) -> None:
        """Destroy every group; the slow part of it happens in the background."""
        self._coordinators.clear()
        if self.implementation is not None:
            self.implementation.destroy()
            self.implementation = None
        groups = _compat.live_process_groups()
        if dist.is_initialized():
            dist.destroy_process_group()
        _compat.begin_names_again()
        self._graveyard.bury(groups)
        self._serial, self._spec = -1, None
        self._known_groups.clear()

    def coordinator(self, group_ranks: list[list[int]]) -> Coordinator:
        """Return the coordinator of the implementation under test for these groups, made once per world."""
        key = repr(group_ranks)
        if key not in self._coordinators:
            self._coordinators[key] = self.new_coordinator(group_ranks, f"vdist{len(self._coordinators)}")
            self._note_groups()
        return self._coordinators[key]

    def new_coordinator(self, group_ranks: list[list[int]], name: str = "own") -> Coordinator:
        """Return a coordinator of the implementation under test, which the caller destroys."""
        if self.implementation is None:
            message = "this run has no implementation under test; use the fixture coordinator_run"
            raise RuntimeError(message)
        made = self.implementation.coordinator(group_ranks, name=name)
        return cast("Coordinator", KeepsInputs(made, self._in_place)) if self._in_place else made

    @property
    def size(self) -> int:
        return self._rendezvous.world_size

    def clean(self) -> bool:
        """Tell whether the world is as it was made: no group added, replaced or destroyed by the function."""
        return self._known_groups == {id(group) for group in _compat.live_process_groups()}

    def traffic(self) -> Traffic:
        return self._watch.traffic(dist.group.WORLD) if dist.group.WORLD is not None else Traffic()

    def calls(self) -> dict[str, int]:
        """Return how many calls of process groups this run has made so far, by the name of the group."""
        return self._watch.calls()

    def unwatched(self) -> AbstractContextManager[None]:
        return self._watch.paused()

    def _note_groups(self) -> None:
        self._known_groups = {id(group) for group in _compat.live_process_groups()}

    def _announce(self, master_port: int) -> None:
        """Set what `env://` reads. As under torchrun the store stands already, one for each attempt."""
        os.environ.update(
            {
                "MASTER_ADDR": self._rendezvous.host,
                "MASTER_PORT": str(master_port),
                "TORCHELASTIC_USE_AGENT_STORE": "True",
            }
        )

    def _init_torch(self, backend: str, timeout: float | None) -> None:
        here = self._rendezvous
        store = _compat.PrefixStore(f"vdist/{self._serial}", self._store)
        dist.init_process_group(
            backend,
            store=store,
            rank=here.rank,
            world_size=here.world_size,
            timeout=None if timeout is None else timedelta(seconds=timeout),
        )

    def _init_implementation(self, spec: WorldSpec) -> None:
        from pytest_vdist.implementations.protocol import InitSettings  # noqa: PLC0415 - only such worlds need it

        assert spec.implementation is not None
        self.implementation = spec.implementation.load()
        self._in_place = self.implementation.capabilities(spec.device_type).in_place
        self.implementation.init(
            InitSettings(
                rank=self._rendezvous.rank,
                world_size=self._rendezvous.world_size,
                local_rank=self._rendezvous.local_rank,
                device_type=spec.device_type,
                split_group=spec.split_group,
                timeout=spec.timeout,
                cpu_timeout=spec.cpu_timeout,
            )
        )


class _Graveyard:
    """Destroys process groups away from the critical path: gloo's destructor takes 10 ms per peer."""

    def __init__(self) -> None:
        self._groups: queue.SimpleQueue[list[Any]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def bury(self, groups: list[Any]) -> None:
        if not groups:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="vdist-graveyard", daemon=True)
            self._thread.start()
        self._groups.put(groups)

    def _work(self) -> None:
        while True:
            groups = self._groups.get()
            del groups


_current: World | None = None


def set_current_world(world: World) -> None:
    global _current  # noqa: PLW0603 - a process is one rank of one world
    _current = world


def current_world() -> World:
    """Return the world of this rank. Raises RuntimeError in a process that is no rank."""
    if _current is None:
        message = "there is no world in this process: it is no rank"
        raise RuntimeError(message)
    return _current


def coordinator(group_ranks: list[list[int]]) -> Coordinator:
    """Return this rank's coordinator for further groups, in a function that `coordinator_run` runs.

    `group_ranks` names every rank once. Every rank calls it with the same lists, and with several lists in
    the same order. It is made once and kept for later runs, so it must not be destroyed. Raises RuntimeError
    outside such a function.
    """
    return current_world().coordinator(group_ranks)


def own_coordinator(group_ranks: list[list[int]]) -> Coordinator:
    """Return a new coordinator for these groups, which the function that is run destroys before it returns.

    Every rank calls it with the same lists. Raises RuntimeError where there is no implementation under test.
    """
    return current_world().new_coordinator(group_ranks)


def unwatched() -> AbstractContextManager[None]:
    """Return a context in which this rank's collectives and messages are not noted, for measuring them.

    A failure in it names the last call before it. What is sent in it must be received in it: nobody would
    miss it. Raises RuntimeError in a process that is no rank.
    """
    return current_world().unwatched()


def call_with_coordinator(
    function: Callable[..., Any], group_ranks: list[list[int]] | None, *args: Any, **kwargs: Any
) -> Any:
    """Call `function(coordinator, *args, **kwargs)` in a rank; no `group_ranks`: one group of all ranks."""
    everyone = [list(range(current_world().size))]
    return function(coordinator(group_ranks or everyone), *args, **kwargs)
