"""The tutorial of docs/adapting.md on a coordinator that knows nothing of the plugin."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.test_docs import (
    DOCS,
    Example,
    blocks_of,
    examples_of,
    pattern_of,
    run_example,
    without_notices,
    write_files,
)

PAGE = DOCS / "adapting.md"
LIBRARY = Path(__file__).with_name("meshlib.py")
LONGEST = 60


def test_an_adapter_is_short() -> None:
    (adapter,) = [block for block in blocks_of(PAGE) if block.text.startswith("# adapter.py")]
    assert len(adapter.text.splitlines()) < LONGEST


@pytest.mark.parametrize("example", [*examples_of(PAGE)], ids=lambda example: example.command.split("=")[-1])
def test_an_example_of_the_tutorial_prints_what_it_shows(example: Example, tmp_path: Path) -> None:
    write_files(PAGE, tmp_path)
    shutil.copy(LIBRARY, tmp_path)
    printed = run_example(example, tmp_path)
    assert pattern_of(example.output).fullmatch(without_notices(printed)), f"{example.command}\n{printed}"
