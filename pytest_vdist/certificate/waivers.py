"""Waivers: known failures of a device that its vendor has taken on, each for a limited time."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pytest_vdist.certificate import tables
from pytest_vdist.certificate.requirements import RequirementsError, registry
from pytest_vdist.certificate.tables import Field, FileError, Place

SCHEMA = "vdist-waivers/1"
_MODES = {
    "backend": Field(tables.is_text, "the name of a backend"),
    "split_group": Field(lambda value: value in {"on", "off"}, "on or off"),
    "compile": Field(tables.is_text, "a compile mode"),
    "world_size": Field(lambda value: type(value) is int and value >= 1, "a whole number from 1"),
}
_FIELDS = {
    "requirement": Field(tables.is_text, "the id of a requirement", required=True),
    "tests": Field(tables.is_texts, "a list of test ids, * for any text"),
    "modes": Field(lambda value: isinstance(value, dict), f"a table with some of {', '.join(_MODES)}"),
    "issue": Field(
        lambda value: isinstance(value, str) and re.fullmatch(r"https?://\S+", value) is not None,
        "the URL of an issue",
        required=True,
    ),
    "owner": Field(tables.is_text, "who takes care of it", required=True),
    "reason": Field(tables.is_text, "why it fails", required=True),
    "expires": Field(
        lambda value: type(value) is dt.date, "a date without quotes, 2027-01-31", required=True
    ),
}


NOT_SELECTED = "not_selected"
"""In place of an outcome: a test of the suites that this session was not to run."""


class State(StrEnum):
    """What became of a waiver."""

    USED = "used"
    PASSED = "everything that it covers passed"
    EXPIRED = "expired"
    UNMATCHED = "no test matches it"
    NOT_RUN = "nothing that it covers was run"
    IN_PART = "what was run of it passed, it covers more"

    @property
    def is_error(self) -> bool:
        """Whether the waiver has to be taken out or renewed."""
        return self in {State.PASSED, State.EXPIRED, State.UNMATCHED}


@dataclass(frozen=True)
class Waiver:
    """A failure that is known: tests of a requirement, by id and mode. No `tests`: all of the requirement."""

    requirement: str
    tests: tuple[str, ...]
    modes: Mapping[str, Any]
    issue: str
    owner: str
    reason: str
    expires: dt.date

    def covers(self, test: str, requirements: Iterable[str], mode: Mapping[str, Any]) -> bool:
        """Tell whether a test, by its id relative to the suites' folder, is covered in its mode."""
        return (
            self.requirement in requirements
            and (not self.tests or any(_matches(test, pattern) for pattern in self.tests))
            and all(mode.get(key) == value for key, value in self.modes.items())
        )

    def is_expired(self, today: dt.date) -> bool:
        return self.expires < today

    def to_json(self) -> dict[str, Any]:
        """Return its entry in a report, without what became of it."""
        return {
            "requirement": self.requirement,
            "tests": list(self.tests),
            "modes": dict(self.modes),
            "issue": self.issue,
            "owner": self.owner,
            "reason": self.reason,
            "expires": self.expires.isoformat(),
        }


def parse_waivers(text: str, *, source: str) -> tuple[Waiver, ...]:
    """Return the waivers written in `text`. `source` names the file in errors.

    Raises FileError with file, number of the waiver, key and value, also for an unknown requirement.
    """
    top = Place(source)
    found = tables.parse(text, SCHEMA, top)
    tables.refuse_unknown(found, ("waiver",), top)
    entries = found.get("waiver")
    if not isinstance(entries, list) or not entries:
        raise FileError(f"{top}there is no [[waiver]]; leave out --vdist-waivers if nothing is waived")
    return tuple(_waiver(entry, top.within(f"waiver {number}")) for number, entry in enumerate(entries, 1))


def state_of(waiver: Waiver, outcomes: Iterable[str], today: dt.date) -> State:
    """Return the state of a waiver; `outcomes` are those reported for all tests that it covers.

    Those of tests that were left to other sessions are NOT_SELECTED.
    """
    known = list(outcomes)
    executed = [outcome for outcome in known if outcome not in {"not_run", "unsupported", NOT_SELECTED}]
    if waiver.is_expired(today):
        return State.EXPIRED
    if not known:
        return State.UNMATCHED
    if not executed:
        return State.NOT_RUN
    if any(outcome != "passed" for outcome in executed):
        return State.USED
    return State.IN_PART if NOT_SELECTED in known else State.PASSED


def _waiver(entry: object, place: Place) -> Waiver:
    table = tables.check(entry, _FIELDS, place)
    try:
        registry().require((table["requirement"],))
    except RequirementsError as error:
        raise FileError(f"{place}requirement: {error}") from None
    modes = tables.check(table.get("modes", {}), _MODES, place.within(f"{place.table}: modes"))
    return Waiver(
        table["requirement"],
        tuple(table.get("tests", ())),
        modes,
        table["issue"],
        table["owner"],
        table["reason"],
        table["expires"],
    )


def _matches(test: str, pattern: str) -> bool:
    """Only * is special: ids are full of brackets, which fnmatch takes for sets of characters."""
    parts = pattern.removeprefix("suites/").split("*")
    return re.fullmatch(".*".join(map(re.escape, parts)), test, re.DOTALL) is not None
