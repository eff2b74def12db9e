"""Reading the TOML files of vendors: every error names the file, the key, the value and the way out."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any


class FileError(ValueError):
    """Raised for a file that does not follow its schema."""


@dataclass(frozen=True)
class Place:
    """Where in a file something stands: the file's name, and the table within it ("" for the top)."""

    file: str
    table: str = ""

    def error(self, key: str, expected: str, value: object) -> FileError:
        """Return an error about the value of a key."""
        return FileError(f"{self}{key} must be {expected}, got {value!r}")

    def within(self, table: str) -> Place:
        return Place(self.file, table)

    def __str__(self) -> str:
        return f"{self.file}: " + (f"{self.table}: " if self.table else "")


@dataclass(frozen=True)
class Field:
    """What a key may hold: how it is checked, and that in words."""

    holds: Callable[[Any], bool]
    expected: str
    required: bool = False


def parse(text: str, schema: str, place: Place) -> dict[str, Any]:
    """Return the tables of a TOML text without its schema. Raises FileError for what is no such file."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise FileError(f"{place}not valid TOML: {error}") from error
    if tables.get("schema") != schema:
        raise place.error("schema", repr(schema), tables.get("schema"))
    return {key: value for key, value in tables.items() if key != "schema"}


def check(table: object, fields: Mapping[str, Field], place: Place) -> dict[str, Any]:
    """Return the table if it holds what the fields say. Raises FileError for the first that it does not."""
    if not isinstance(table, dict):
        raise FileError(f"{place}must be a table, got {table!r}")
    refuse_unknown(table, fields, place)
    for key, field in fields.items():
        if key not in table:
            if field.required:
                raise FileError(f"{place}{key} is missing; it must be {field.expected}")
        elif not field.holds(table[key]):
            raise place.error(key, field.expected, table[key])
    return table


def refuse_unknown(keys: Iterable[str], known: Iterable[str], place: Place) -> None:
    """Raise FileError for a key that nothing reads, most likely a typing error."""
    names = list(known)
    for key in keys:
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1)
            advice = f"did you mean {near[0]}? " if near else ""
            raise FileError(f"{place}unknown key {key!r}; {advice}the keys are {', '.join(names)}")


def is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def is_texts(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(is_text(each) for each in value)


def one_of(*allowed: str) -> Field:
    return Field(lambda value: value in allowed, f"one of {', '.join(allowed)}")


def some_of(*allowed: str) -> Field:
    return Field(
        lambda value: is_texts(value) and len(set(value)) == len(value) and set(value) <= set(allowed),
        f"a list of some of {', '.join(allowed)}",
    )


TEXT = Field(is_text, "a text")
TEXTS = Field(is_texts, "a list of texts")
