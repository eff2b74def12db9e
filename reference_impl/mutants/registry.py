"""What a mutant is, how it is registered, and how it is put into place and taken out again."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..envs import SHARED_MEMORY  # noqa: TID252

Original = Callable[..., Any]


class MutantDoesNotApplyError(Exception):
    """Raised when a mutant changes nothing: what it is about is not where it was."""


@dataclass(frozen=True)
class Mutant:
    """The reference with one thing wrong.

    `summary` says what is wrong, `defect` names its class, `kills` the requirements whose tests must notice,
    `issue` where the field has met it. `world_size` is the smallest world that shows it. It needs one of
    `devices` (none: any), subgroups by split_group if `split_group`, `compile_mode`, and the variables of
    `environment`: groups on the CPU stay with torch.distributed, the way that all devices have, unless the
    mutant is about another. `timeout` is the shortest deadline in seconds that leaves the tests which must
    notice it the time that they need.
    """

    name: str
    summary: str
    defect: str
    kills: tuple[str, ...]
    change: Callable[[Patch], None]
    issue: str | None = None
    world_size: int = 2
    devices: tuple[str, ...] = ()
    split_group: bool = False
    compile_mode: str = "eager"
    timeout: float = 0.0
    environment: tuple[tuple[str, str], ...] = ((SHARED_MEMORY, "0"),)

    def fits(self, device: str) -> bool:
        return not self.devices or device in self.devices


class Patch:
    """Replaces attributes of classes and modules, and puts them back."""

    def __init__(self) -> None:
        self.replaced: list[tuple[Any, str, Any]] = []

    def value(self, owner: Any, name: str, new: Any) -> None:
        """Replace an attribute. Raises MutantDoesNotApplyError unless `owner` itself defines it."""
        if name not in vars(owner):
            raise MutantDoesNotApplyError(
                f"{getattr(owner, '__name__', owner)} does not define {name!r}: it was renamed or moved, so "
                "point the mutant at what does this now"
            )
        self.replaced.append((owner, name, vars(owner)[name]))
        setattr(owner, name, new)

    def around(self, owner: Any, name: str) -> Callable[[Callable[..., Any]], None]:
        """Replace a function by the one decorated, which gets the original as its first argument."""

        def replace(changed: Callable[..., Any]) -> None:
            original = vars(owner).get(name)

            # A descriptor, so that it becomes a method where the original is one.
            def replacement(*args: Any, **kwargs: Any) -> Any:
                return changed(original, *args, **kwargs)

            # What the mutant takes, not what the original takes.
            vars(replacement)["__signature__"] = _without_first(changed)
            self.value(owner, name, functools.update_wrapper(replacement, original) if original else None)

        return replace

    def undo(self) -> None:
        while self.replaced:
            owner, name, original = self.replaced.pop()
            setattr(owner, name, original)


def _without_first(function: Callable[..., Any]) -> inspect.Signature:
    signature = inspect.signature(function)
    return signature.replace(parameters=list(signature.parameters.values())[1:])


MUTANTS: dict[str, Mutant] = {}


def mutant(
    defect: str, *kills: str, name: str | None = None, summary: str | None = None, **needs: Any
) -> Callable[[Callable[[Patch], None]], Callable[[Patch], None]]:
    """Register the decorated function as a mutant; its name and docstring are the mutant's by default.

    `needs` are further fields of `Mutant`.
    """

    def register(change: Callable[[Patch], None]) -> Callable[[Patch], None]:
        text = (summary or change.__doc__ or "").strip()
        made = Mutant(name or change.__name__, text, defect, kills, change, **needs)
        if made.name in MUTANTS:
            raise ValueError(f"there are two mutants {made.name!r}: rename one of them")
        MUTANTS[made.name] = made
        return change

    return register


class _Current:
    mutant: Mutant | None = None
    patch = Patch()


def apply(name: str | None) -> None:
    """Make this process' reference that mutant, None: the reference as it is.

    Does nothing where it is that already. Raises ValueError for an unknown name and MutantDoesNotApplyError.
    """
    if name is not None and name not in MUTANTS:
        raise ValueError(f"there is no mutant {name!r}; `vdist mutants --list` names them")
    wanted = None if name is None else MUTANTS[name]
    if wanted is _Current.mutant:
        return
    _Current.patch.undo()
    _Current.mutant, _Current.patch = None, Patch()
    if wanted is None:
        return
    try:
        wanted.change(_Current.patch)
        if not _Current.patch.replaced:
            raise MutantDoesNotApplyError(f"mutant {wanted.name!r} replaces nothing")
    except BaseException:
        _Current.patch.undo()
        raise
    _Current.mutant = wanted
