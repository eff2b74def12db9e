"""Results of several runs of mutants as one: each mutant once, on the CPU where it shows there."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_vdist.mutation.record import Tree
from pytest_vdist.mutation.reports import SCHEMA
from pytest_vdist.mutation.results import Fate, Result

_FIRST = "cpu"


class MergeError(Exception):
    """Raised for a file that holds no results of mutants."""


@dataclass(frozen=True)
class Merged:
    """One result for each mutant that has any, in the order of the mutants. `unknown` are of no mutant."""

    results: tuple[Result, ...]
    unknown: tuple[str, ...]
    trees: tuple[Tree, ...]
    date: str
    seconds: float


def merge_files(paths: Sequence[Path], mutants: Iterable[str], today: str) -> Merged:
    """Return what the files of `vdist mutants --json` hold together. Raises MergeError for another file.

    Of the same mutant on the same device the last file counts. Of several devices the first that killed
    counts, beginning with the CPU; where none did, its result.
    """
    files = [_read(path) for path in paths]
    latest: dict[tuple[str, str], Result] = {}
    for data in files:
        for entry in data["results"]:
            result = Result.from_json(entry)
            latest[result.mutant, result.backend] = result
    of_mutant: dict[str, list[Result]] = {}
    for result in sorted(latest.values(), key=lambda each: each.backend != _FIRST):
        of_mutant.setdefault(result.mutant, []).append(result)
    order = list(mutants)
    return Merged(
        tuple(_chosen(of_mutant[name]) for name in order if name in of_mutant),
        tuple(name for name in of_mutant if name not in order),
        tuple(dict.fromkeys(tree for data in files for tree in _trees(data))),
        max(data.get("date", today) for data in files),
        sum(data["seconds"] for data in files),
    )


def _chosen(results: Sequence[Result]) -> Result:
    return next((each for each in results if each.fate is Fate.KILLED), results[0])


def _trees(data: Mapping[str, Any]) -> list[Tree]:
    return [Tree(**tree) for tree in data.get("trees", ())] or [Tree(None, None)]


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MergeError(f"cannot read results from {path}: {error}") from error
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise MergeError(f"{path} holds no results of mutants: `vdist mutants --json {path}` writes them")
    return data
