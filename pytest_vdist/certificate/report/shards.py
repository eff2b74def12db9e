"""Parts of one certification: whether those that are merged are all of it, and of the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_vdist.certificate.report.folder import ReportError

_OF_A_JOB = frozenset({"--vdist-certify", "--vdist-shard", "arguments"})
_Part = tuple[Path, Mapping[str, Any]]


def shard_entry(number: int, count: int, tests: Sequence[str]) -> dict[str, Any]:
    """Return what a session says of its shard; `tests` are those of all shards."""
    return {"number": number, "count": count, "tests": len(tests), "digest": _digest(tests)}


def shard_text(shard: Mapping[str, Any]) -> str:
    return f"shard {shard['number']} of {shard['count']}"


def require_whole(folders: Sequence[Path], sessions: Sequence[Mapping[str, Any]]) -> None:
    """Raise ReportError unless every shard stands beside all others of its kind, once, run alike."""
    of_tests: dict[str, list[_Part]] = {}
    for folder, session in zip(folders, sessions, strict=True):
        if session.get("shard"):
            of_tests.setdefault(session["shard"]["digest"], []).append((folder, session))
    for parts in of_tests.values():
        _require_alike(parts)
        _require_each_once(parts, strangers=[part for part in _all(of_tests) if part not in parts])
        _require_tests(parts)


def _all(of_tests: Mapping[str, list[_Part]]) -> Iterable[_Part]:
    return (part for parts in of_tests.values() for part in parts)


def _require_alike(parts: Sequence[_Part]) -> None:
    first, reference = parts[0]
    for folder, session in parts[1:]:
        one, other = (_conditions(each) for each in (reference, session))
        for name in sorted({*one, *other}):
            if one.get(name) != other.get(name):
                raise ReportError(
                    f"{first} and {folder} are shards of different runs, {name} is {one.get(name)!r} and "
                    f"{other.get(name)!r}; run all shards of one certification alike"
                )


def _conditions(session: Mapping[str, Any]) -> dict[str, Any]:
    settings = {each["name"]: each["value"] for each in session["settings"] if each["name"] not in _OF_A_JOB}
    return {
        "the number of shards": session["shard"]["count"],
        **settings,
        **{f"library {name}": it for name, it in session["environment"].get("libraries", {}).items()},
    }


def _require_each_once(parts: Sequence[_Part], strangers: Sequence[_Part]) -> None:
    found: dict[int, Path] = {}
    for folder, session in parts:
        number = session["shard"]["number"]
        if number in found:
            raise ReportError(
                f"{found[number]} and {folder} are both {shard_text(session['shard'])}; name each shard once"
            )
        found[number] = folder
    count = parts[0][1]["shard"]["count"]
    missing = [str(number) for number in range(1, count + 1) if number not in found]
    if missing:
        others = "".join(
            f"; {folder} is {shard_text(session['shard'])} of other tests: its files, profiles, modes or "
            f"world sizes differ"
            for folder, session in strangers
        )
        raise ReportError(
            f"shard {', '.join(missing)} of {count} is missing beside {', '.join(map(str, found.values()))}: "
            f"merge all shards of a certification{others}"
        )


def _require_tests(parts: Sequence[_Part]) -> None:
    tests = [test for _, session in parts for test in session["expected"]]
    shard = parts[0][1]["shard"]
    if len(tests) != shard["tests"] or _digest(tests) != shard["digest"]:
        raise ReportError(
            f"the shards {', '.join(str(folder) for folder, _ in parts)} hold {len(tests)} tests, "
            f"{len(set(tests))} of them different; they are not the {shard['tests']} that were dealt out"
        )


def _digest(tests: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(tests)).encode("utf-8")).hexdigest()
