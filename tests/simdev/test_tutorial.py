"""The tutorial "add your device" is true: its commands print what it shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.test_docs import DOCS, Example, examples_of, pattern_of, run_example, without_notices, write_files

PAGE = DOCS / "your-device.md"


@pytest.mark.parametrize("example", list(examples_of(PAGE)), ids=lambda example: example.command)
def test_an_example_prints_what_the_page_shows(example: Example, tmp_path: Path) -> None:
    write_files(PAGE, tmp_path)
    printed = run_example(example, tmp_path)
    assert pattern_of(example.output).fullmatch(without_notices(printed)), f"{example.command}\n{printed}"


def test_the_page_has_examples() -> None:
    assert len(list(examples_of(PAGE))) == 2
