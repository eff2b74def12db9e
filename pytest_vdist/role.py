"""Which part a process plays that torchrun, or a launcher with the same variables, has started."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass

MARK = "TORCHELASTIC_RUN_ID"
NUMBERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT")
REQUIRED = (*NUMBERS, "MASTER_ADDR")
_CONSUMED = ("GROUP_RANK", "GROUP_WORLD_SIZE", "ROLE_RANK", "ROLE_NAME", "ROLE_WORLD_SIZE")


class RoleError(Exception):
    """Raised when the variables of torchrun do not say which process this is."""


@dataclass(frozen=True)
class Role:
    """The numbers of one of torchrun's processes, and the store where they all meet.

    `attempt` is the same in all processes of one attempt, and different in the next one after a restart.
    With `agent_store`, torchrun serves the store; else rank 0 does.
    """

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    node: int
    master_addr: str
    master_port: int
    attempt: str
    agent_store: bool

    @property
    def is_controller(self) -> bool:
        return self.rank == 0

    @property
    def several_nodes(self) -> bool:
        return self.local_world_size < self.world_size


def read_role(environment: Mapping[str, str]) -> Role:
    """Return the role that the variables give. Raises RoleError if some are missing or make no sense."""
    missing = [name for name in REQUIRED if not environment.get(name)]
    if missing:
        there = [name for name in (MARK, *REQUIRED) if environment.get(name)]
        raise RoleError(
            f"the variables of torchrun must all be there, missing {', '.join(missing)} in the environment, "
            f"which has {', '.join(there) or 'none of them'}; start with torchrun … -m pytest, set them, "
            "or pass --vdist-launcher=local"
        )
    values = {name: _number(name, environment[name]) for name in NUMBERS}
    rank, world_size = values["RANK"], values["WORLD_SIZE"]
    local_rank, local_world_size = values["LOCAL_RANK"], values["LOCAL_WORLD_SIZE"]
    if not (rank < world_size and local_rank < local_world_size <= world_size):
        raise RoleError(
            f"ranks must be smaller than their world sizes, got RANK={rank} of WORLD_SIZE={world_size} and "
            f"LOCAL_RANK={local_rank} of LOCAL_WORLD_SIZE={local_world_size} in the environment; "
            "correct them, or pass --vdist-launcher=local"
        )
    node = environment.get("GROUP_RANK") or str(rank // local_world_size)
    return Role(
        rank,
        world_size,
        local_rank,
        local_world_size,
        _number("GROUP_RANK", node),
        environment["MASTER_ADDR"],
        values["MASTER_PORT"],
        f"{environment.get(MARK, '')}/{environment.get('TORCHELASTIC_RESTART_COUNT', '0')}",
        environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
    )


def forget(environment: MutableMapping[str, str]) -> None:
    """Take the variables away: the ranks of tests have numbers and stores of their own."""
    for name in (*REQUIRED, *_CONSUMED):
        environment.pop(name, None)
    for name in [name for name in environment if name.startswith("TORCHELASTIC_")]:
        del environment[name]


def _number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise RoleError(
            f"{name} must be a whole number from 0, got {text!r} from the environment; correct it, "
            "or pass --vdist-launcher=local"
        )
    return int(text)
