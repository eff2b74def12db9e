"""The control mutants of a certification, which must be caught before the implementation itself is judged."""

from __future__ import annotations

from collections.abc import Mapping

CONTROLS: Mapping[str, tuple[str, ...]] = {
    "the sum lacks the last rank": ("VD-AR-001",),
    "one bit of what is gathered is wrong on the last rank": ("VD-AG-001", "VD-AG-008"),
    "the barrier lets everybody through": ("VD-BAR-001",),
}
"""Each control mutant, and the requirements of which a test must notice it."""
