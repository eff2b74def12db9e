"""The schema of report.json, and what in a report does not follow it."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from pytest_vdist.certificate.report.folder import Report

SCHEMA = "vdist-report/1"
SCHEMA_FILE = Path(__file__).with_name("report.schema.json")
_MOST = 20
_LONGEST_VALUE = 120


def schema_problems(report: Report) -> list[str]:
    """Return what does not follow the schema, each with its place and the value; [] for a valid report.

    No more than the first 20 are told.
    """
    return _problems(_validator().iter_errors(report))


def result_problems(result: dict[str, Any]) -> list[str]:
    """Return what in one line of results.jsonl does not follow the schema."""
    return _problems(
        _validator().evolve(schema={"$ref": "#/$defs/test"} | _definitions()).iter_errors(result)
    )


@functools.cache
def _schema() -> dict[str, Any]:
    schema: dict[str, Any] = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    return schema


@functools.cache
def _validator() -> Any:
    return Draft202012Validator(_schema())


def _definitions() -> dict[str, Any]:
    return {"$defs": _schema()["$defs"]}


def _problems(errors: Iterable[Any]) -> list[str]:
    found = []
    for error in errors:
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path)
        found.append(f"{place.removeprefix('.') or 'the whole'}: {_told(error)}")
        if len(found) == _MOST:
            found.append("and maybe more: only the first 20 are told")
            break
    return found


def _told(error: Any) -> str:
    value = json.dumps(error.instance, ensure_ascii=False)
    short = value if len(value) <= _LONGEST_VALUE else f"{value[:_LONGEST_VALUE]}…"
    if error.validator == "required":
        missing = [key for key in error.validator_value if key not in error.instance]
        return f"{', '.join(missing)} missing"
    wanted = {
        "const": f"must be {error.validator_value!r}",
        "enum": f"must be one of {', '.join(map(str, error.validator_value))}"
        if error.validator == "enum"
        else "",
        "type": f"must be of type {_types(error.validator_value)}" if error.validator == "type" else "",
        "minLength": "must not be empty",
        "minItems": "must not be empty",
        "anyOf": f"must be {' or '.join(map(_kind, error.validator_value))}"
        if error.validator == "anyOf"
        else "",
        "pattern": f"must match {error.validator_value}",
        "minimum": f"must be at least {error.validator_value}",
        "maximum": f"must be at most {error.validator_value}",
    }.get(error.validator, f"breaks the rule {error.validator}")
    return f"{wanted}, got {short}"


def _kind(schema: Mapping[str, Any]) -> str:
    return str(schema.get("type") or schema.get("$ref", "").rpartition("/")[2])


def _types(value: object) -> str:
    return " or ".join(value) if isinstance(value, list) else str(value)
