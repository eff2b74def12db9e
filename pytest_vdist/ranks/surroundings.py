"""What a run takes along from the controller: changes of the environment, warning filters, log levels."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

from pytest_vdist.ranks import _compat, wire


def environment_changes(
    started_with: Mapping[bytes, bytes], env: Mapping[str, str] | None
) -> dict[str, str | None]:
    """Return what the test changed since the ranks were started, so that monkeypatch.setenv reaches them."""
    now = _compat.environment_snapshot()
    changes: dict[str, str | None] = {
        os.fsdecode(k): os.fsdecode(v) for k, v in now.items() if started_with.get(k) != v
    }
    changes.update({os.fsdecode(name): None for name in started_with.keys() - now.keys()})
    changes.update(env or {})
    return changes


class Surroundings:
    """Reads what is set in this process, at the cost of what has changed since the last time."""

    def __init__(self) -> None:
        self._filters: tuple[list[Any], bytes] = ([], b"")
        self._loggers: list[tuple[str, logging.Logger]] = []
        self._known = -1

    def warning_filters(self) -> bytes:
        """Return the filters as they travel."""
        filters = _compat.current_warning_filters()
        if filters != self._filters[0]:
            self._filters = (filters, wire.dump_result(filters))
        return self._filters[1]

    def log_levels(self) -> dict[str, int]:
        """Return the levels that are set; the empty name is the root logger."""
        registered = logging.Logger.manager.loggerDict
        if len(registered) != self._known:
            self._known = len(registered)
            self._loggers = [
                (n, logger) for n, logger in registered.items() if isinstance(logger, logging.Logger)
            ]
        levels = {name: logger.level for name, logger in self._loggers if logger.level}
        return {"": logging.getLogger().level, **levels}
