"""One option: its names on the command line, in the environment and in the ini file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from pytest_vdist.options.parsers import BadValueError

COMMAND_LINE = "command line"
DEFAULT = "default"
UNSET = "none"
VARIABLE_PREFIX = "VDIST_"


@dataclass(frozen=True)
class Row:
    """One option: its names on the three ways in, how its text is read, and what holds without it."""

    name: str
    flag: str
    variable: str
    metavar: str
    default: str
    example: str
    help: str
    parse: Callable[[str], Any]
    parse_variable: Callable[[str], Any] | None = None

    @property
    def ini(self) -> str:
        return self.flag.removeprefix("--").replace("-", "_")

    def read(self, text: str, source: str) -> Any:
        """Return the value of a text. Raises pytest.UsageError that says what, where from and what to do."""
        if source == DEFAULT and text == UNSET:
            return None
        parse = (
            self.parse_variable
            if self.parse_variable and source == in_environment(self.variable)
            else self.parse
        )
        try:
            return parse(text)
        except BadValueError as error:
            raise pytest.UsageError(
                f"{error} from {origin(source)}; pass {self.flag}={self.example}"
            ) from None


def in_environment(variable: str) -> str:
    return f"{variable} in the environment"


def origin(source: str) -> str:
    """Return a source as it stands in a sentence: "from the command line"."""
    return source if source.startswith(VARIABLE_PREFIX) else f"the {source}"
