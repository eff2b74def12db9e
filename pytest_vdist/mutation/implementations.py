"""The mutants as implementations under test: `--vdist-impl=pytest_vdist.mutation.implementations:X`."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Any

from pytest_vdist.implementations.protocol import Capabilities, InitSettings
from pytest_vdist.implementations.reference import ReferenceImplementation
from pytest_vdist.reference_impl import mutants

if TYPE_CHECKING:
    from pytest_vdist.implementations.protocol import Coordinator


class MutatedReference:
    """The reference with one thing wrong from its initialisation in a rank on; it claims what that claims."""

    def __init__(self, mutant: str) -> None:
        self.name = f"reference with {mutant}"
        self._mutant = mutant
        self._reference = ReferenceImplementation()

    def capabilities(self, device_type: str) -> Capabilities:
        return self._reference.capabilities(device_type)

    def coordinator_class(self, device_type: str) -> type:
        """Make this process' reference the mutant: it is one that does nothing else."""
        mutants.apply(self._mutant)
        return self._reference.coordinator_class(device_type)

    def communicators(self, device_type: str) -> dict[str, Any]:
        mutants.apply(self._mutant)
        return self._reference.communicators(device_type)

    def init(self, settings: InitSettings) -> None:
        mutants.apply(self._mutant)
        self._set_environment()
        self._reference.init(settings)

    def coordinator(self, group_ranks: list[list[int]], *, name: str, **options: Any) -> Coordinator:
        self._set_environment()
        return self._reference.coordinator(group_ranks, name=name, **options)

    def destroy(self) -> None:
        self._reference.destroy()

    def _set_environment(self) -> None:
        """Set what the mutant needs, for as long as the rank's function runs: the runner puts it back."""
        os.environ.update(mutants.MUTANTS[self._mutant].environment)


def __getattr__(name: str) -> functools.partial[MutatedReference]:
    if name in mutants.MUTANTS:
        return functools.partial(MutatedReference, name)
    raise AttributeError(f"there is no mutant {name!r}; `vdist mutants --list` names them")
