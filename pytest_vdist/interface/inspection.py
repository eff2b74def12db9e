"""Classes are imported and compared in a process of their own, which pytest starts and asks once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pytest_vdist.implementations.spec import ImplementationSpec
from pytest_vdist.interface.hosts import InterfaceError

DEADLINE = 300.0
"""Seconds in which a process must have imported torch, a framework and a vendor's package."""
_LONGEST_TAIL = 2000


@dataclass(frozen=True)
class Findings:
    """What does not fit, by where it does not: texts of differences. `about` says what was compared."""

    about: str
    differences: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Inspection:
    """What a process found out; `coordinator` is None where the implementation does not name the class."""

    coordinator: Findings | None
    communicators: tuple[Findings, ...] = ()


@dataclass(frozen=True)
class Question:
    """What a process is to compare, as plain values.

    `pairs` are those of --vdist-interface: a host, and the class or "" for the one that the host picks.
    `unsupported` is what implementation or manifest say that there is not.
    """

    implementation: str
    target: str
    origin: str
    device_type: str
    pairs: tuple[tuple[str, str], ...] = ()
    unsupported: tuple[str, ...] = ()
    path: tuple[str, ...] = field(default_factory=lambda: tuple(sys.path))

    @classmethod
    def about(
        cls,
        spec: ImplementationSpec,
        device_type: str,
        pairs: Sequence[tuple[str, str]],
        unsupported: Iterable[str] = (),
    ) -> Question:
        """Return the question about an implementation; methods that are `unsupported` may be missing."""
        return cls(spec.name, spec.target, spec.origin, device_type, tuple(pairs), tuple(unsupported))

    @property
    def spec(self) -> ImplementationSpec:
        return ImplementationSpec(self.implementation, self.target, self.origin)


def inspect_classes(question: Question) -> Inspection:
    """Have a process import the classes and compare them.

    Raises InterfaceError where one cannot be imported or the process does not answer.
    """
    program = f"import sys; sys.path[:] = {list(question.path)!r}; from {__name__} import main; main()"
    try:
        process = subprocess.run(  # noqa: S603 - this interpreter and this module
            [sys.executable, "-c", program],
            input=json.dumps(vars(question)),
            capture_output=True,
            text=True,
            check=False,
            timeout=DEADLINE,
        )
    except subprocess.TimeoutExpired:
        raise InterfaceError(
            f"importing the classes of {question.implementation!r} took more than {DEADLINE:g} s"
        ) from None
    if process.returncode != 0:
        raise InterfaceError(
            f"the process that imports the classes of {question.implementation!r} ended with exit code "
            f"{process.returncode}: {process.stderr[-_LONGEST_TAIL:].strip()}"
        )
    answer = json.loads(process.stdout.splitlines()[-1])
    if "error" in answer:
        raise InterfaceError(answer["error"])
    coordinator = answer["coordinator"]
    return Inspection(
        None if coordinator is None else Findings(**coordinator),
        tuple(Findings(**each) for each in answer["communicators"]),
    )


def main() -> None:
    """Answer the question on standard input; what imports print goes to standard error."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    asked = json.loads(sys.stdin.read())
    asked["pairs"] = tuple(map(tuple, asked["pairs"]))
    answers.write(json.dumps(_answer(Question(**asked))) + "\n")
    answers.close()


def _answer(question: Question) -> dict[str, Any]:
    from pytest_vdist.interface import comparison, hosts  # noqa: PLC0415 - what they print is no answer

    try:
        implementation = question.spec.load()
        coordinator = None
        if hasattr(implementation, "coordinator_class"):
            cls: Any = implementation.coordinator_class(question.device_type)
            coordinator = {
                "about": f"{cls.__module__}.{cls.__qualname__}",
                "differences": comparison.coordinator_differences(cls, question.unsupported),
            }
        communicators = []
        for name, cls in _pairs(question, implementation):
            host = hosts.host_named(name)
            communicators.append(
                {
                    "about": f"{cls.__module__}.{cls.__qualname__} in {host.name}",
                    "differences": comparison.communicator_differences(host, cls),
                }
            )
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return {"coordinator": coordinator, "communicators": communicators}


def _pairs(question: Question, implementation: Any) -> list[tuple[str, Any]]:
    """Return hosts and classes: those that were asked for, or else those that the implementation names."""
    from pytest_vdist.interface import hosts  # noqa: PLC0415

    if not question.pairs:
        named = getattr(implementation, "communicators", None)
        return list(named(question.device_type).items()) if named is not None else []
    return [
        (host, hosts.class_named(cls) if cls else hosts.picked_by(host, question.device_type))
        for host, cls in question.pairs
    ]
