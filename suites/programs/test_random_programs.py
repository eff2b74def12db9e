"""Random programs of many calls: what no hand-written case has thought of."""

from __future__ import annotations

import pytest

from pytest_vdist import ProgramSearch


@pytest.mark.vdist_requirement("VD-PRG-001")
def test_random_programs_do_what_the_oracle_says(program_search: ProgramSearch, world_size: int) -> None:
    """Calls of every kind, in any order and any groups, on results of each other, are right on every rank."""
    program_search(world_size=world_size)


@pytest.mark.filterwarnings("default")  # the compiler imports parts of torch that torch itself has deprecated
@pytest.mark.vdist_world_size(min=2, max=4, multiple_of=2)
@pytest.mark.vdist_requirement("VD-PRG-004")
def test_random_programs_of_collectives_do_the_same_compiled(
    program_search: ProgramSearch, world_size: int, compile_mode: str
) -> None:
    """Collectives that feed each other, as one compiled function, give what the oracle says on every rank."""
    program_search(world_size=world_size, compile_mode=compile_mode)
