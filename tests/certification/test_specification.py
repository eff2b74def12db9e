"""The pages of docs/spec are made from the registry, and say what it says."""

from __future__ import annotations

import re
from pathlib import Path

from pytest_vdist import cli
from pytest_vdist.certificate.requirements import registry
from pytest_vdist.certification import specification

SPEC = Path(__file__).parent.parent.parent / "docs" / "spec"


def test_the_pages_are_those_that_would_be_made() -> None:
    assert specification.differences(SPEC) == [], "run: vdist spec docs/spec"


def test_every_requirement_has_one_entry_and_every_entry_is_a_requirement() -> None:
    written = "".join(path.read_text(encoding="utf-8") for path in SPEC.glob("*.md"))
    assert sorted(re.findall(r"^### (\S+)$", written, re.MULTILINE)) == sorted(registry().requirements)


def test_the_command_writes_the_pages_and_removes_those_of_no_chapter(tmp_path: Path) -> None:
    (tmp_path / "old.md").write_text("a chapter that is no more")
    assert specification.differences(tmp_path)[-1:] == ["old.md belongs to no chapter"]
    assert cli.main(["spec", str(tmp_path)]) == 0
    assert specification.differences(tmp_path) == []
    (tmp_path / "groups.md").write_text("changed by hand")
    assert specification.differences(tmp_path) == ["groups.md is not as it would be made"]
