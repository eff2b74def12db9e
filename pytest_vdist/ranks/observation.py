"""What a rank notes while the function runs: warnings and log records, for the controller to emit again."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pytest_vdist.ranks import _compat, wire
from pytest_vdist.ranks.messages import RecordedWarning


class WarningNotes:
    """Records warnings under the controller's filters; an "error" filter raises in the rank, as it should."""

    def __init__(self) -> None:
        self._filters_sent = b""
        self._filters: list[Any] = []

    @contextmanager
    def recording(self, filters: bytes) -> Iterator[list[warnings.WarningMessage]]:
        if filters != self._filters_sent:
            self._filters_sent, self._filters = filters, wire.load_message(filters)
        with warnings.catch_warnings(record=True) as caught:
            _compat.set_warning_filters(self._filters)
            yield caught


def recorded(caught: list[warnings.WarningMessage]) -> tuple[RecordedWarning, ...]:
    return tuple(RecordedWarning(str(w.message), w.category, w.filename, w.lineno) for w in caught)


_PLAIN = (str, int, float, bool, type(None))


class LogNotes(logging.Handler):
    """Collects the log records of one run as plain dictionaries."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        fields = {name: v if isinstance(v, _PLAIN) else str(v) for name, v in record.__dict__.items()}
        fields["msg"], fields["args"] = record.getMessage(), None
        if record.exc_info:
            fields["exc_text"] = logging.Formatter().formatException(record.exc_info)
        fields["exc_info"] = None
        self.records.append(fields)

    @contextmanager
    def recording(self, levels: Mapping[str, int]) -> Iterator[list[dict[str, Any]]]:
        """Record under the controller's levels; the empty name is the root logger."""
        self.records = []
        named = ((logging.getLogger(name or None), level) for name, level in levels.items())
        changed = [(logger, logger.level, level) for logger, level in named if logger.level != level]
        for logger, _, level in changed:
            logger.setLevel(level)
        logging.getLogger().addHandler(self)
        try:
            yield self.records
        finally:
            logging.getLogger().removeHandler(self)
            for logger, level, _ in changed:
                logger.setLevel(level)
