"""The kill matrix: at the terminal, as JSON, as HTML and as a page of the documentation."""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_vdist.mutation.results import Fate, Result, idle, score

SCHEMA = "vdist-mutants/1"
BEGIN, END = "<!-- matrix: begin -->", "<!-- matrix: end -->"
_COLUMNS = ("mutant", "device", "noticed by", "test", "how", "seconds")
_STYLE = (
    "body{font:14px sans-serif;margin:2em;max-width:100em}table{border-collapse:collapse}"
    "th,td{border:1px solid #ccc;padding:.2em .5em;text-align:left;vertical-align:top}"
    "tr.bad td{background:#fdd}td:last-child{text-align:right}code{white-space:nowrap}"
)


@dataclass(frozen=True)
class Summary:
    """All that a run of mutants says. `idle` is empty where only a selection was run."""

    results: tuple[Result, ...]
    idle: tuple[str, ...]
    unfit: tuple[str, ...]
    seconds: float
    missing: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        results: Sequence[Result],
        requirements: Sequence[str],
        unfit: Sequence[str],
        seconds: float,
        missing: Sequence[str] = (),
    ) -> Summary:
        """Summarise; `requirements` are those that should notice something, `unfit` the mutants left out.

        Mutants that are `missing` should have a result and have none: they count as not killed.
        """
        return cls(tuple(results), tuple(idle(results, requirements)), tuple(unfit), seconds, tuple(missing))

    @property
    def score(self) -> float:
        return score(self.results) * len(self.results) / (len(self.results) + len(self.missing))

    @property
    def open(self) -> list[Result]:
        """The results that do not count."""
        return [result for result in self.results if result.fate is not Fate.KILLED]

    def headline(self) -> str:
        killed = len(self.results) - len(self.open)
        known = len(self.results) + len(self.missing)
        return f"{killed} of {known} mutants killed, score {100 * self.score:.1f} %"


def row_of(result: Result) -> tuple[str, ...]:
    """Return the cells of one result, in the order of the columns."""
    kill = result.kill
    noticed = ", ".join(result.requirements) or str(result.fate)
    return (
        result.mutant,
        result.backend,
        noticed,
        kill.test.removeprefix("suites/") if kill else "-",
        kill.how if kill else "-",
        f"{result.seconds:.1f}",
    )


def terminal_text(summary: Summary) -> str:
    """Return the matrix as an aligned table, and under it what is wrong with the suites."""
    rows = [_COLUMNS, *(row_of(result) for result in summary.results)]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([*(line.rstrip() for line in lines), "", *findings(summary)])


def findings(summary: Summary) -> list[str]:
    """Return the headline, each mutant that does not count, and the requirements that noticed nothing."""
    lines = [f"{summary.headline()}, {summary.seconds:.0f} s"]
    for result in summary.open:
        said = f" in {result.kill.test}: {result.kill.message}" if result.kill else ""
        lines.append(f"{result.mutant} on {result.backend} {_verb(result.fate)}{said}")
        lines.append(f"    should be noticed by the tests of {', '.join(result.expected)}")
    if summary.missing:
        lines.append(f"not run: {', '.join(summary.missing)}")
    if summary.idle:
        lines.append(f"requirements that noticed no mutant: {', '.join(summary.idle)}")
    if summary.unfit:
        lines.append(f"not for this device: {', '.join(summary.unfit)}")
    return lines


def _verb(fate: Fate) -> str:
    return str(fate) if fate is Fate.SURVIVED else f"was {fate}"


def json_text(summary: Summary, about: Mapping[str, Any] | None = None) -> str:
    """Return the summary as JSON with sorted keys; `about` says what ran, and when."""
    data = {
        "schema": SCHEMA,
        **(about or {}),
        "score": summary.score,
        "seconds": round(summary.seconds, 1),
        "results": [result.to_json() for result in summary.results],
        "idle_requirements": list(summary.idle),
        "not_for_these_devices": list(summary.unfit),
    }
    return json.dumps(data, indent=1, sort_keys=True) + "\n"


def html_text(summary: Summary) -> str:
    """Return one page that needs no other file."""

    def cells(tag: str, row: Sequence[str]) -> str:
        return "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row)

    rows = "\n".join(
        f"<tr{'' if result.fate is Fate.KILLED else ' class=bad'}>{cells('td', row_of(result))}</tr>"
        for result in summary.results
    )
    said = "\n".join(f"<p>{html.escape(line)}</p>" for line in findings(summary))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Mutants of the reference</title>'
        f"<style>{_STYLE}</style></head>\n<body><h1>Mutants of the reference</h1>\n{said}\n"
        f"<table><thead><tr>{cells('th', _COLUMNS)}</tr></thead>\n<tbody>\n{rows}\n</tbody></table>"
        "</body></html>\n"
    )


def markdown_text(summary: Summary, summary_of: Callable[[str], str]) -> str:
    """Return the matrix for the documentation, by defect; `summary_of` says what is wrong with a mutant."""
    by_defect: dict[str, list[Result]] = {}
    for result in summary.results:
        by_defect.setdefault(result.defect, []).append(result)
    lines = [f"{summary.headline()}."]
    if summary.missing:
        lines += ["", f"Not run: {', '.join(f'`{name}`' for name in summary.missing)}."]
    for defect, results in by_defect.items():
        lines += ["", f"### {defect.capitalize()}", "", "| mutant | device | noticed by | how |"]
        lines.append("|---|---|---|---|")
        for result in results:
            name, device, noticed, _, how, _ = row_of(result)
            lines.append(f"| `{name}`: {summary_of(name)} | {device} | {noticed} | {how} |")
    return "\n".join(lines) + "\n"


def in_page(page: str, matrix: str) -> str:
    """Return a page with the matrix between its marks; the matrix alone if the page has no marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{matrix}\n{END}{after}" if begin and end else matrix
