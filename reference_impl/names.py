"""Names of the groups that live in this process."""

from __future__ import annotations

from collections import Counter
from typing import Protocol

import torch


class Group(Protocol):
    """What has a name and can be destroyed."""

    unique_name: str
    device: torch.device

    def destroy(self) -> None: ...


_made: Counter[str] = Counter()
_groups: dict[str, Group] = {}


def next_name(name: str) -> str:
    """Return `name:n`, n counting the groups of that name since the last `reset`.

    Ranks agree on it when they make their groups in the same order.
    """
    number = _made[name]
    _made[name] += 1
    return f"{name}:{number}"


def register(group: Group) -> None:
    """Keep a group until `unregister`, whoever else forgets it.

    NCCL's groups wait for each other when they are destroyed: ranks that forget different ones, and destroy
    the rest, would not come to an end.
    """
    _groups[group.unique_name] = group


def unregister(unique_name: str) -> None:
    _groups.pop(unique_name, None)


def find(unique_name: str) -> Group:
    """Return the living group of that name. Raises ValueError where there is none, or no longer."""
    group = _groups.get(unique_name)
    if group is None:
        raise ValueError(
            f"no group {unique_name!r} in this process: it was destroyed or never made; "
            f"there are {sorted(_groups) or 'no groups'}"
        )
    return group


def living() -> list[Group]:
    """Return the groups that were not destroyed, oldest first."""
    return list(_groups.values())


def reset() -> None:
    """Count from 0 again: the ranks of the next world may have different pasts."""
    _made.clear()
