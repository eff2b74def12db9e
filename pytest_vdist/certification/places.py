"""Paths of the machine that a report was made on, as its readers may see them."""

from __future__ import annotations

import re
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pytest_vdist.certificate.suites import SUITES


@dataclass(frozen=True)
class Places:
    """Folders of this machine and what stands for each in a report: `replaced` has the longest ones first."""

    replaced: Sequence[tuple[re.Pattern[str], str]]

    @classmethod
    def of(cls, config: pytest.Config, folder: Path) -> Places:
        """Name paths relative to the suites, pytest's root folder, installed packages, or the home.

        `folder` is that of the report, whose own name is enough.
        """
        known = {
            str(folder.absolute()): folder.name,
            str(Path.home()): "~",
            str(config.rootpath): ".",
            sysconfig.get_path("stdlib"): "lib",
            sysconfig.get_path("purelib"): "site-packages",
            sysconfig.get_path("platlib"): "site-packages",
            str(SUITES): "suites",
        }
        ordered = sorted(known.items(), key=lambda pair: -len(pair[0]))
        return cls([(_pattern(folder), name) for folder, name in ordered if folder.strip("/")])

    def shown(self, value: Any) -> Any:
        """Return a value of JSON with every path in its texts and keys as readers may see it."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(key): self.shown(each) for key, each in value.items()}
        return [self.shown(each) for each in value] if isinstance(value, list | tuple) else value

    def text(self, text: str) -> str:
        for folder, name in self.replaced:
            text = folder.sub(lambda found, name=name: _named(name, found["rest"]), text)  # type: ignore[misc]
        return text


def _pattern(folder: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w.~-]){re.escape(folder)}(?P<rest>/(?=[\w.~-])|(?![\w.-]))")


def _named(name: str, rest: str) -> str:
    return "" if name == "." and rest else f"{name}{rest}"
