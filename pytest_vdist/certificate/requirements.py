"""The registry of requirements: what the suites check, in machine-readable form."""

from __future__ import annotations

import difflib
import functools
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any

SCHEMA = "vdist-requirements/1"
REGISTRY_FILE = Path(__file__).with_name("requirements.toml")
_AREA = re.compile(r"[A-Z][A-Z0-9]*")
_ID = re.compile(r"VD-([A-Z][A-Z0-9]*)-\d{3}")


class RequirementsError(ValueError):
    """Raised when the registry is malformed, or when an id that is asked for is not in it."""


class Level(StrEnum):
    """How binding a requirement is, as in RFC 2119."""

    MUST = "MUST"
    SHOULD = "SHOULD"
    MAY = "MAY"


@dataclass(frozen=True)
class Requirement:
    """One property of a coordinator.

    `chapter` is the folder of the suites that tests it, `min_world_size` the fewest ranks that can show it.
    """

    id: str
    area: str
    level: Level
    chapter: str
    min_world_size: int
    text: str


@dataclass(frozen=True)
class Registry:
    """All requirements by id, in the order of the file, and the titles of their areas."""

    areas: Mapping[str, str]
    requirements: Mapping[str, Requirement]

    def require(self, ids: tuple[str, ...]) -> tuple[Requirement, ...]:
        """Return the requirements of these ids. Raises RequirementsError for one that is unknown."""
        return tuple(self._requirement(id_) for id_ in ids)

    def _requirement(self, id_: str) -> Requirement:
        if id_ in self.requirements:
            return self.requirements[id_]
        near = difflib.get_close_matches(str(id_), self.requirements, n=3)
        advice = f"did you mean {', '.join(near)}?" if near else f"the areas are {', '.join(self.areas)}"
        raise RequirementsError(f"unknown requirement {id_!r}; {advice}")


@functools.cache
def registry() -> Registry:
    """Return the registry that the package ships, read once."""
    return parse_registry(REGISTRY_FILE.read_text(encoding="utf-8"), source=REGISTRY_FILE.name)


def parse_registry(text: str, *, source: str) -> Registry:
    """Return the registry written in `text` (TOML). `source` names the file in errors.

    Raises RequirementsError with the place and the offending value when the text does not follow the schema.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RequirementsError(f"{source}: not valid TOML: {error}") from error
    schema = tables.pop("schema", None)
    if schema != SCHEMA:
        raise RequirementsError(f"{source}: schema must be {SCHEMA!r}, got {schema!r}")
    areas = _areas(tables.pop("areas", None), source)
    requirements = {id_: _requirement(id_, entry, areas, source) for id_, entry in tables.items()}
    return Registry(MappingProxyType(areas), MappingProxyType(requirements))


def _areas(table: object, source: str) -> dict[str, str]:
    if not isinstance(table, dict) or not table:
        raise RequirementsError(f"{source}: [areas] must name at least one area, got {table!r}")
    for area, title in table.items():
        if not _AREA.fullmatch(area):
            raise RequirementsError(
                f"{source}: area {area!r} must be upper-case letters and digits, starting with a letter"
            )
        if not _is_text(title):
            raise RequirementsError(f"{source}: area {area}: the title must be a text, got {title!r}")
    return table


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value == value.strip() and value != ""


def _is_level(value: object) -> bool:
    return isinstance(value, str) and value in list(Level)


def _is_chapter(value: object) -> bool:
    return isinstance(value, str) and value.isidentifier()


def _is_world_size(value: object) -> bool:
    return type(value) is int and value >= 1


_CHECKS: dict[str, tuple[Callable[[object], bool], str]] = {
    "level": (_is_level, "one of MUST, SHOULD, MAY"),
    "chapter": (_is_chapter, "the name of a folder of the suites"),
    "min_world_size": (_is_world_size, "a whole number from 1"),
    "text": (_is_text, "a text without blanks around it"),
}


def _requirement(id_: str, entry: Any, areas: Mapping[str, str], source: str) -> Requirement:
    match = _ID.fullmatch(id_)
    if match is None:
        raise RequirementsError(f"{source}: requirement id must look like VD-AR-001, got {id_!r}")
    area = match.group(1)
    if area not in areas:
        raise RequirementsError(f"{source}: {id_}: area {area!r} is not in [areas]: {', '.join(areas)}")
    if not isinstance(entry, dict):
        raise RequirementsError(f"{source}: {id_} must be a table, got {entry!r}")
    for key in entry:
        if key not in _CHECKS:
            raise RequirementsError(
                f"{source}: {id_}: unknown key {key!r}; the keys are {', '.join(_CHECKS)}"
            )
    for key, (is_valid, expected) in _CHECKS.items():
        if key not in entry:
            raise RequirementsError(f"{source}: {id_}: {key} is missing; it must be {expected}")
        if not is_valid(entry[key]):
            raise RequirementsError(f"{source}: {id_}: {key} must be {expected}, got {entry[key]!r}")
    return Requirement(
        id_, area, Level(entry["level"]), entry["chapter"], entry["min_world_size"], entry["text"]
    )
