"""The kills that ship with the package: which mutants the suites of this version have noticed, and when.

`vdist mutants --record` writes the record, in the form of --json, so that further runs can be merged into it.
Reports of certifications tell it, or why it does not hold.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pytest_vdist import certificate
from pytest_vdist.mutation.results import Fate

RECORD_FILE = Path(certificate.__file__).with_name("kills.json")


@dataclass(frozen=True)
class Tree:
    """What ran: version of the package, and digest of the files of the suites; None where nobody noted it."""

    version: str | None
    suites_digest: str | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def read_record(path: Path = RECORD_FILE) -> dict[str, Any] | None:
    """Return the record, None where there is none."""
    if not path.is_file():
        return None
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return record


def kill_score(
    record: Mapping[str, Any] | None, mutants: Collection[str], now: Tree
) -> dict[str, Any] | None:
    """Return what reports say of the record; with `stale`, the reasons why it gives no score for this tree.

    A mutant that is not recorded, or one that is gone, makes it stale, and so does another version. Where
    only files of the suites have changed since, the score stands, with a remark.
    """
    if record is None:
        return None
    recorded = {each["mutant"]: Fate(each["fate"]) for each in record["results"]}
    stale = [
        *_some("mutants were not run", [name for name in mutants if name not in recorded]),
        *_some("mutants are no more", [name for name in recorded if name not in mutants]),
        *(
            f"it is of version {tree['version']}, this is {now.version}"
            for tree in record["trees"]
            if tree["version"] not in {None, now.version}
        ),
    ]
    told = {"date": record["date"], "stale": stale}
    if stale:
        return told
    killed = sum(fate is Fate.KILLED for fate in recorded.values())
    same = all(tree["suites_digest"] == now.suites_digest for tree in record["trees"])
    return {
        **told,
        "killed": killed,
        "mutants": len(recorded),
        "score": killed / len(recorded),
        "same_suites": same,
    }


def _some(what: str, names: Sequence[str]) -> list[str]:
    return [f"{len(names)} {what}, such as {names[0]}"] if names else []
