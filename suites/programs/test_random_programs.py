"""Random programs of many calls: what no hand-written case has thought of."""

from __future__ import annotations

import pytest

from pytest_vdist import ProgramSearch


@pytest.mark.vdist_requirement("VD-PRG-001")
def test_random_programs_do_what_the_oracle_says(program_search: ProgramSearch, world_size: int) -> None:
    """Calls of every kind, in any order and any groups, on results of each other, are right on every rank."""
    program_search(world_size=world_size)
