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
_VERSION = re.compile(r"\d{4}\.\d+")
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

    `chapter` is the folder of the suites that tests it, `min_world_size` the fewest ranks that can show it,
    `rationale` why it is required, `profiles` the sets of requirements that a verdict is about.
    """

    id: str
    area: str
    level: Level
    chapter: str
    min_world_size: int
    text: str
    rationale: str = ""
    profiles: tuple[str, ...] = ()


@dataclass(frozen=True)
class Registry:
    """All requirements by id, in the order of the file, the titles of their areas, and what profiles mean."""

    spec_version: str
    areas: Mapping[str, str]
    rationales: Mapping[str, str]
    profiles: Mapping[str, str]
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
    version = tables.pop("spec_version", None)
    if not (isinstance(version, str) and _VERSION.fullmatch(version)):
        raise RequirementsError(f'{source}: spec_version must look like "2026.1", got {version!r}')
    areas = _areas(tables.pop("areas", None), source)
    common = _Common(
        areas,
        _texts("profiles", tables.pop("profiles", None), source),
        tables.pop("area_profiles", {}),
        _texts("rationales", tables.pop("rationales", None), source),
    )
    _check_common(common, source)
    requirements = {id_: _requirement(id_, entry, common, source) for id_, entry in tables.items()}
    return Registry(
        version,
        MappingProxyType(areas),
        MappingProxyType(common.rationales),
        MappingProxyType(common.profiles),
        MappingProxyType(requirements),
    )


@dataclass(frozen=True)
class _Common:
    """What the requirements of an area have in common."""

    areas: dict[str, str]
    profiles: dict[str, str]
    area_profiles: dict[str, list[str]]
    rationales: dict[str, str]


def _check_common(common: _Common, source: str) -> None:
    for table, entries in (("area_profiles", common.area_profiles), ("rationales", common.rationales)):
        for area in common.areas:
            if area not in entries:
                raise RequirementsError(f"{source}: [{table}] has no entry for the area {area!r}")
        for area in entries:
            if area not in common.areas:
                raise RequirementsError(f"{source}: [{table}]: area {area!r} is not in [areas]")
    for area, names in common.area_profiles.items():
        _check_profiles(names, common.profiles, f"{source}: [area_profiles]: {area}")


def _check_profiles(names: object, known: Mapping[str, str], place: str) -> None:
    if not isinstance(names, list) or not names or any(name not in known for name in names):
        raise RequirementsError(f"{place} must list some of the profiles {', '.join(known)}, got {names!r}")


def _texts(name: str, table: object, source: str) -> dict[str, str]:
    if not isinstance(table, dict) or not table:
        raise RequirementsError(f"{source}: [{name}] must have at least one entry, got {table!r}")
    for key, text in table.items():
        if not _is_text(text):
            raise RequirementsError(f"{source}: [{name}]: {key} must be a text, got {text!r}")
    return table


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


_OPTIONAL = ("profiles", "rationale")


def _requirement(id_: str, entry: Any, common: _Common, source: str) -> Requirement:
    areas = common.areas
    match = _ID.fullmatch(id_)
    if match is None:
        raise RequirementsError(f"{source}: requirement id must look like VD-AR-001, got {id_!r}")
    area = match.group(1)
    if area not in areas:
        raise RequirementsError(f"{source}: {id_}: area {area!r} is not in [areas]: {', '.join(areas)}")
    if not isinstance(entry, dict):
        raise RequirementsError(f"{source}: {id_} must be a table, got {entry!r}")
    for key in entry:
        if key not in _CHECKS and key not in _OPTIONAL:
            raise RequirementsError(
                f"{source}: {id_}: unknown key {key!r}; the keys are {', '.join((*_CHECKS, *_OPTIONAL))}"
            )
    for key, (is_valid, expected) in _CHECKS.items():
        if key not in entry:
            raise RequirementsError(f"{source}: {id_}: {key} is missing; it must be {expected}")
        if not is_valid(entry[key]):
            raise RequirementsError(f"{source}: {id_}: {key} must be {expected}, got {entry[key]!r}")
    rationale = entry.get("rationale", common.rationales[area])
    if not _is_text(rationale):
        raise RequirementsError(f"{source}: {id_}: rationale must be a text, got {rationale!r}")
    added = entry.get("profiles")
    if added is not None:
        _check_profiles(added, common.profiles, f"{source}: {id_}: profiles")
    of_both = {*common.area_profiles[area], *(added or ())}
    return Requirement(
        id_,
        area,
        Level(entry["level"]),
        entry["chapter"],
        entry["min_world_size"],
        entry["text"],
        rationale,
        tuple(name for name in common.profiles if name in of_both),
    )
