"""What became of the mutants, and what that says about the suites."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any


class Fate(StrEnum):
    """What became of a mutant; only `KILLED` counts for the score."""

    KILLED = "killed"
    SURVIVED = "survived"
    UNRELATED = "killed by an unrelated test"
    HARNESS = "killed by a crash of the harness"
    VOID = "killed by a test that fails on the reference too"


@dataclass(frozen=True)
class Kill:
    """The first failure of a mutant: `test` by its id, how it failed, and the first line that it said.

    `how` is "failed", "hang", "died" (a rank) or "error" (before or after the test, so nobody judged).
    """

    test: str
    requirements: tuple[str, ...]
    how: str
    message: str


@dataclass(frozen=True)
class Result:
    """One mutant on one device. `expected` are the requirements that should notice it."""

    mutant: str
    backend: str
    defect: str
    expected: tuple[str, ...]
    fate: Fate
    seconds: float
    tests: int
    kill: Kill | None = None

    @property
    def requirements(self) -> tuple[str, ...]:
        """Requirements that noticed the mutant as they should."""
        if self.kill is None or self.fate is not Fate.KILLED:
            return ()
        return tuple(id_ for id_ in self.expected if id_ in self.kill.requirements)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Result:
        kill = data["kill"]
        if kill is not None:
            kill = Kill(kill["test"], tuple(kill["requirements"]), kill["how"], kill["message"])
        fields = {**data, "kill": kill, "fate": Fate(data["fate"]), "expected": tuple(data["expected"])}
        return cls(**fields)


def fate_of(expected: Sequence[str], kill: Kill | None) -> Fate:
    """Return what a first failure is worth."""
    if kill is None:
        return Fate.SURVIVED
    if kill.how == "error":
        return Fate.HARNESS
    return Fate.KILLED if set(expected) & set(kill.requirements) else Fate.UNRELATED


def without_void(results: Iterable[Result], failing: Mapping[str, Iterable[str]]) -> list[Result]:
    """Take back the kills by tests that fail on the reference; `failing` has these tests by backend."""
    return [
        replace(result, fate=Fate.VOID)
        if result.kill is not None and result.kill.test in failing.get(result.backend, ())
        else result
        for result in results
    ]


def score(results: Sequence[Result]) -> float:
    """Return the share of the mutants that were killed as they should be, from 0 to 1."""
    if not results:
        raise ValueError("no mutant was run, so there is no score")
    return sum(result.fate is Fate.KILLED for result in results) / len(results)


def idle(results: Iterable[Result], requirements: Iterable[str]) -> list[str]:
    """Return those of the requirements that noticed no mutant."""
    busy = {id_ for result in results for id_ in result.requirements}
    return [id_ for id_ in requirements if id_ not in busy]
