"""What the controller and the processes of torchrun tell each other."""

from __future__ import annotations

from dataclasses import dataclass, field

from pytest_vdist.ranks.ledger import LedgerReading
from pytest_vdist.ranks.world import Rendezvous


@dataclass(frozen=True)
class Hello:
    """The first message on a connection: whose it is, and which launch it answers; 0 for the agent's own.

    `software` must be the same everywhere, `monotonic` is the sender's clock in seconds.
    """

    rank: int
    ticket: int
    node: int = 0
    local_rank: int = 0
    host: str = ""
    software: str = ""
    monotonic: float = 0.0


@dataclass(frozen=True)
class Prepare:
    """Ranks of the backend will be started: what all of them need can be started already."""

    backend: str
    interface: str


@dataclass(frozen=True)
class Launch:
    """Start a rank on the device of the process, and open a connection for it that names the ticket.

    `path` are the places where the controller finds modules, `interface` what gloo is to use, if not "".
    """

    ticket: int
    backend: str
    rendezvous: Rendezvous
    path: tuple[str, ...]
    interface: str


@dataclass(frozen=True)
class Goodbye:
    """The session has ended as it should."""


@dataclass(frozen=True)
class Farewell:
    """The process ends, and why."""

    reason: str


@dataclass(frozen=True)
class ToRank:
    """Pass the message on."""

    message: bytes


@dataclass(frozen=True)
class HangUp:
    """Let the idle rank end by itself."""


@dataclass(frozen=True)
class Kill:
    """End the rank now."""


@dataclass(frozen=True)
class Inquire:
    """Say how the rank stands, with its stack if that is wanted."""

    with_stack: bool


@dataclass(frozen=True)
class Output:
    """What the rank has written since the last message."""

    stdout: str = ""
    stderr: str = ""


@dataclass(frozen=True)
class FromRank:
    """What the rank says."""

    message: bytes
    output: Output


@dataclass(frozen=True)
class Standing:
    """How the rank stands."""

    ledger: LedgerReading = field(default_factory=LedgerReading)
    stack: str = ""
    output: Output = field(default_factory=Output)


@dataclass(frozen=True)
class Ended:
    """The rank's process has ended, and how; or it could not be started, and why."""

    reason: str
    ledger: LedgerReading = field(default_factory=LedgerReading)
    output: Output = field(default_factory=Output)
