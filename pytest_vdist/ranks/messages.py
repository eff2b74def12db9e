"""What controller and ranks tell each other: plain data, so that either side can be read alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_vdist.implementations.spec import ImplementationSpec
    from pytest_vdist.ranks.comparisons import Comparison


@dataclass(frozen=True)
class WorldSpec:
    """The process groups that a run finds in its ranks.

    With an `implementation`, that one makes the world; else torch's default process group is made over
    `process_group_backend`; if that is None too, there is none. `timeout` and `cpu_timeout` are the limits
    of device and CPU groups in seconds; None leaves them to the backend.
    """

    device_type: str
    process_group_backend: str | None = None
    implementation: ImplementationSpec | None = None
    split_group: bool = False
    timeout: float | None = None
    cpu_timeout: float | None = None

    @property
    def empty(self) -> bool:
        return self.process_group_backend is None and self.implementation is None


@dataclass(frozen=True)
class Run:
    """One dispatch to all ranks. `world_serial` names the world; a rank that holds another one replaces it.

    `master_port` is that of the store which `env://` finds; no other world has used it.
    With `post_mortem`, a rank debugs an exception before it answers.
    `environment` is relative to the environment in which the ranks were started; None removes a variable.
    """

    serial: int
    world: WorldSpec
    world_serial: int
    master_port: int
    environment: Mapping[str, str | None]
    warning_filters: bytes
    log_levels: Mapping[str, int]
    seed: int
    post_mortem: bool
    body: bytes


@dataclass(frozen=True)
class Question:
    """What a rank that is being debugged shows; it waits for a line."""

    text: str


class Outcome(Enum):
    RETURNED = "returned"
    RAISED = "raised"
    SKIPPED = "skipped"
    XFAILED = "xfailed"
    EXITED = "exited"


@dataclass(frozen=True)
class RaisedException:
    """An exception as it left a rank. `monotonic` is in seconds, on the host's common clock.

    `comparison` is what the assert compared that raised it, if that travels.
    """

    type_name: str
    message: str
    traceback: str
    monotonic: float
    comparison: Comparison | None = None


@dataclass(frozen=True)
class RecordedWarning:
    message: str
    category: type[Warning]
    filename: str
    lineno: int


@dataclass(frozen=True)
class Traffic:
    """What one rank did in its default group; ranks that disagree have left traffic behind.

    `collectives` is the group's sequence number, `sent` and `received` count the run's messages by peer.
    """

    collectives: int = 0
    sent: Mapping[int, int] = field(default_factory=dict)
    received: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Reply:
    """What a rank answers to a `Run`.

    `world_reusable` and `rank_reusable` are False when the process groups, or the process itself, must not
    serve another run.
    """

    serial: int
    outcome: Outcome
    value: bytes = b""
    reason: str = ""
    raised: RaisedException | None = None
    warnings: tuple[RecordedWarning, ...] = ()
    log_records: tuple[dict[str, Any], ...] = ()
    world_reusable: bool = True
    rank_reusable: bool = True
    traffic: Traffic = field(default_factory=Traffic)
