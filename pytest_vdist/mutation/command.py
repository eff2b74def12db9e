"""The command `vdist mutants`."""

from __future__ import annotations

import argparse
import datetime as dt
import sys
import time
from collections.abc import Sequence
from fnmatch import fnmatchcase
from importlib import metadata

from pytest_vdist.backends.base import BackendError
from pytest_vdist.backends.registry import find_backend, require_devices
from pytest_vdist.certificate.requirements import Level, RequirementsError, registry
from pytest_vdist.certificate.suites import suites_digest
from pytest_vdist.mutation import record, reports
from pytest_vdist.mutation.merging import MergeError, merge_files
from pytest_vdist.mutation.record import Tree
from pytest_vdist.mutation.results import Fate, Result
from pytest_vdist.mutation.runner import MutationError, run_mutants
from pytest_vdist.mutation.traceability import WITHOUT_MUTANT
from pytest_vdist.reference_impl.mutants import MUTANTS, Mutant

OK, INTERNAL_ERROR, USAGE_ERROR, SCORE_TOO_LOW = 0, 3, 4, 15
_ORIGIN = "--backend"


class UsageError(Exception):
    """Raised when the command is asked for something that there is not."""


def main(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code: 0, 4 for wrong arguments, 15 if a mutant is not killed."""
    if arguments.merge:
        return _merge(arguments)
    try:
        mutants = chosen(arguments.names, arguments.requirement)
        if arguments.list:
            _print_list(mutants)
            return OK
        if arguments.record and len(mutants) < len(MUTANTS):
            raise UsageError("--record is for all mutants, got a selection; --merge the results of runs")
        backends = _backends(arguments.backend)
        if arguments.jobs < 1:
            raise UsageError(f"--jobs must be a whole number from 1, got {arguments.jobs}")
        if not any(mutant.fits(backend) for mutant in mutants for backend in backends):
            devices = sorted({device for mutant in mutants for device in mutant.devices})
            raise UsageError(
                f"none of the chosen mutants shows on {', '.join(backends)}; pass --backend={devices[0]}"
            )
    except (UsageError, BackendError, RequirementsError) as error:
        print(f"vdist mutants: {error}", file=sys.stderr)  # noqa: T201 - what the command is for
        return USAGE_ERROR
    return _run(mutants, backends, arguments)


def chosen(patterns: Sequence[str], requirements: Sequence[str]) -> list[Mutant]:
    """Return the mutants of these names that one of these requirements should notice; nothing given: all.

    Raises UsageError for a name that fits none, RequirementsError for an unknown requirement.
    """
    registry().require(tuple(requirements))
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in MUTANTS):
            raise UsageError(f"no mutant is named {pattern!r}; `vdist mutants --list` names them")
    found = [
        mutant
        for mutant in MUTANTS.values()
        if (not patterns or any(fnmatchcase(mutant.name, pattern) for pattern in patterns))
        and (not requirements or set(mutant.kills) & set(requirements))
    ]
    if not found:
        raise UsageError(f"no mutant of these names should be noticed by {', '.join(requirements)}")
    return found


def _backends(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        require_devices(find_backend(name, origin=_ORIGIN), origin=_ORIGIN)
    return names


def _run(mutants: Sequence[Mutant], backends: Sequence[str], arguments: argparse.Namespace) -> int:
    start, total = time.monotonic(), sum(m.fits(backend) for m in mutants for backend in backends)
    done = 0

    def progress(result: Result) -> None:
        nonlocal done
        done += 1
        noticed = ", ".join(result.requirements) or str(result.fate).upper()
        place = f"[{done:{len(str(total))}}/{total}]"
        print(f"{place} {result.mutant} ({result.backend}): {noticed}, {result.seconds:.1f} s", flush=True)  # noqa: T201

    try:
        results = run_mutants(
            mutants, backends, jobs=arguments.jobs, timeout=arguments.timeout, report=progress
        )
    except MutationError as error:
        print(f"vdist mutants: {error}", file=sys.stderr)  # noqa: T201
        return INTERNAL_ERROR
    everything = len(mutants) == len(MUTANTS)
    summary = reports.Summary.of(
        results,
        _busy_requirements() if everything else [],
        [m.name for m in mutants if not any(m.fits(backend) for backend in backends)],
        time.monotonic() - start,
    )
    print(f"\n{reports.terminal_text(summary)}")  # noqa: T201
    _write(summary, arguments, [tree_now()], _today())
    return OK if all(result.fate is Fate.KILLED for result in results) else SCORE_TOO_LOW


def _merge(arguments: argparse.Namespace) -> int:
    try:
        if arguments.names or arguments.requirement or arguments.list:
            raise UsageError("--merge takes the files as they are, got a selection of mutants as well")
        merged = merge_files(arguments.merge, MUTANTS, _today())
        if not merged.results:
            raise UsageError("--merge got no result of any mutant")
    except (UsageError, MergeError) as error:
        print(f"vdist mutants: {error}", file=sys.stderr)  # noqa: T201
        return USAGE_ERROR
    run = {result.mutant for result in merged.results}
    summary = reports.Summary.of(
        merged.results,
        _busy_requirements(),
        (),
        merged.seconds,
        [name for name in MUTANTS if name not in run],
    )
    print("\n".join(reports.findings(summary)))  # noqa: T201
    if merged.unknown:
        print(f"left out, no mutants any more: {', '.join(merged.unknown)}")  # noqa: T201
    _write(summary, arguments, merged.trees, merged.date)
    return OK if not summary.open and not summary.missing else SCORE_TOO_LOW


def _busy_requirements() -> list[str]:
    """Return the requirements of which each should notice a mutant."""
    musts = [id_ for id_, entry in registry().requirements.items() if entry.level is Level.MUST]
    return [id_ for id_ in musts if id_ not in WITHOUT_MUTANT]


def _write(summary: reports.Summary, arguments: argparse.Namespace, trees: Sequence[Tree], date: str) -> None:
    about = {"trees": [tree.to_json() for tree in trees], "date": date}
    for path in (arguments.json, record.RECORD_FILE if arguments.record else None):
        if path is not None:
            path.write_text(reports.json_text(summary, about), encoding="utf-8")
            print(f"written: {path}")  # noqa: T201
    if arguments.html is not None:
        arguments.html.write_text(reports.html_text(summary), encoding="utf-8")
    if arguments.markdown is not None:
        path = arguments.markdown
        page = path.read_text(encoding="utf-8") if path.is_file() else ""
        matrix = reports.markdown_text(summary, lambda name: MUTANTS[name].summary)
        path.write_text(reports.in_page(page, matrix), encoding="utf-8")


def tree_now() -> Tree:
    """Return what runs in this process."""
    return Tree(metadata.version("pytest-vdist"), suites_digest())


def _today() -> str:
    return dt.datetime.now(dt.UTC).date().isoformat()


def _print_list(mutants: Sequence[Mutant]) -> None:
    for mutant in mutants:
        where = f" [{', '.join(mutant.devices)}]" if mutant.devices else ""
        print(f"{mutant.name}{where}: {', '.join(mutant.kills)}\n    {mutant.summary}")  # noqa: T201
        if mutant.issue:
            print(f"    {mutant.issue}")  # noqa: T201
