"""What ranks wrote, warned and logged, emitted again in the controller with the rank's label."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterable, Sequence
from typing import TextIO

from pytest_vdist.ranks.failures import RankStatus
from pytest_vdist.ranks.messages import RecordedWarning, Reply


def emit(
    replies: Sequence[Reply | None], output: Sequence[tuple[str, str]], label: str = ""
) -> list[tuple[int, Reply]]:
    """Let output, warnings and log records of a run reach the test; return the replies that came, by rank.

    `label` stands before "rank", here and in what follows: `[play 0, rank 1]`.
    """
    by_rank = [(rank, reply) for rank, reply in enumerate(replies) if reply is not None]
    emit_output(output, label)
    emit_warnings(by_rank, label)
    emit_log_records(by_rank, label)
    return by_rank


def emit_output(output: Sequence[tuple[str, str]], label: str = "") -> None:
    """Write each rank's output to the stream it was meant for, every line labelled `[rank N]`."""
    for rank, (stdout, stderr) in enumerate(output):
        _write_lines(sys.stdout, rank, stdout, label)
        _write_lines(sys.stderr, rank, stderr, label)


def emit_ends(statuses: Iterable[RankStatus], label: str = "") -> None:
    """Write to stderr what dead ranks wrote last, and the stacks of those that have not finished."""
    for status in statuses:
        _write_lines(sys.stderr, status.rank, status.output, label)
        _write_lines(sys.stderr, status.rank, status.stack, label)


def emit_warnings(replies: Iterable[tuple[int, Reply]], label: str = "") -> None:
    """Warn again at the place in the function; equal warnings of several ranks become one."""
    ranks_of: dict[RecordedWarning, list[int]] = {}
    for rank, reply in replies:
        for warning in dict.fromkeys(reply.warnings):
            ranks_of.setdefault(warning, []).append(rank)
    for warning, ranks in ranks_of.items():
        text = f"{_label(ranks, label)} {warning.message}"
        warnings.warn_explicit(text, warning.category, warning.filename, warning.lineno)


def emit_log_records(replies: Iterable[tuple[int, Reply]], label: str = "") -> None:
    """Hand the records to the loggers of the same names, in order of time."""
    labelled = [(record, rank) for rank, reply in replies for record in reply.log_records]
    for fields, rank in sorted(labelled, key=lambda pair: float(pair[0]["created"])):
        record = logging.makeLogRecord(fields)
        record.msg = f"{_label([rank], label)} {record.msg}"
        logging.getLogger(record.name).handle(record)


def _label(ranks: Sequence[int], label: str) -> str:
    named = f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {', '.join(map(str, ranks))}"
    return f"[{label}{named}]"


def _write_lines(stream: TextIO, rank: int, text: str, label: str) -> None:
    for line in text.splitlines():
        stream.write(f"{_label([rank], label)} {line}\n")
