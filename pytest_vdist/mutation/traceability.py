"""From requirements to mutants and back: what has none, and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pytest_vdist.certificate.requirements import Level, Requirement
from pytest_vdist.reference_impl.mutants import Mutant

WITHOUT_MUTANT: Mapping[str, str] = {
    "VD-CMP-012": "the tests call torch.distributed itself: no line of an implementation runs in them",
    "VD-ERR-010": "the reference has every operation; tests/certification tries it on one that lacks some",
}
"""Requirements for which there can be no mutant of the reference, and why not."""


def without_mutant(requirements: Mapping[str, Requirement], mutants: Iterable[Mutant]) -> list[str]:
    """Return the MUST requirements that no mutant should make fail and that have no reason for it."""
    named = {id_ for mutant in mutants for id_ in mutant.kills}
    return [
        id_
        for id_, requirement in requirements.items()
        if requirement.level is Level.MUST and id_ not in named and id_ not in WITHOUT_MUTANT
    ]


def without_test(requirements: Mapping[str, Requirement], tested: Sequence[str]) -> list[str]:
    """Return the MUST requirements that no test names."""
    return [
        id_
        for id_, requirement in requirements.items()
        if requirement.level is Level.MUST and id_ not in set(tested)
    ]
