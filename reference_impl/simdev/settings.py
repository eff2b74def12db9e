"""What the environment says about the simulated device. Nothing here needs the extension."""

from __future__ import annotations

import os

COUNT_VARIABLE = "SIMDEV_COUNT"
VISIBLE_VARIABLE = "SIMDEV_VISIBLE_DEVICES"
_DEFAULT_COUNT = 8


def device_count() -> int:
    """Return how many devices this process sees. Raises ValueError for a variable that is no such number."""
    count = _number(os.environ.get(COUNT_VARIABLE) or str(_DEFAULT_COUNT), COUNT_VARIABLE)
    listed = os.environ.get(VISIBLE_VARIABLE)
    if not listed:
        return count
    visible = [_number(part.strip(), VISIBLE_VARIABLE) for part in listed.split(",")]
    return sum(1 for device in visible if device < count)


def _number(text: str, variable: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise ValueError(f"environment variable {variable}: {text!r} is not a whole number of 0 or more")
    return int(text)
