"""The page of findings is what its scripts print: all are on it by their own words, and one is run here."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent.parent / "docs" / "findings"
PAGE = FOLDER.parent / "findings.md"
CLASSES = {"defect", "undocumented limit", "disagreement with the specification"}


@pytest.fixture(scope="module")
def program() -> Any:
    spec = importlib.util.spec_from_file_location("run_findings", FOLDER / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["run_findings"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules["run_findings"]


def scripts() -> list[Path]:
    return sorted(path for path in FOLDER.glob("*.py") if path.stem != "run")


def test_every_script_is_classified_and_on_the_page_by_its_title(program: Any) -> None:
    page = PAGE.read_text(encoding="utf-8")
    for finding in map(program.Finding.read, scripts()):
        assert finding.fields["Class"] in CLASSES, finding.name
        assert finding.fields["Run"].endswith(f" {finding.name}.py")
        assert f"## {finding.title}\n\n{finding.fields['Class'].capitalize()}" in page, finding.name
    assert page.count("\n## ") == len(scripts())


def test_a_script_prints_under_torchrun_what_the_page_shows(program: Any) -> None:
    lines = program.run(program.Finding.read(FOLDER / "torch_gloo_dtype_differs.py"))
    assert "\n".join(["```text", *lines, "```"]) in PAGE.read_text(encoding="utf-8")


def test_sections_of_scripts_that_are_not_run_stay_and_of_those_that_are_gone_go(
    program: Any, tmp_path: Path
) -> None:
    page = tmp_path / "findings.md"
    sections = {name: f"## Title of {name}\n\n[{name}.py](findings/{name}.py)" for name in ("a", "b", "c")}
    page.write_text("\n\n".join(["# Findings\n\nBy hand.", *sections.values()]) + "\n")
    program.write(page, {"b": "## New\n\n[b.py](findings/b.py)"}, ["a", "b"])
    assert page.read_text() == (
        f"# Findings\n\nBy hand.\n\n{sections['a']}\n\n## New\n\n[b.py](findings/b.py)\n"
    )


def test_a_script_that_prints_nothing_is_an_error_with_what_it_wrote(
    program: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "quiet.py"
    script.write_text('"""Nothing.\n\nRun: torchrun --nproc-per-node=1 quiet.py\n"""\n\nprint("no rank")\n')
    monkeypatch.setattr(program, "FOLDER", tmp_path)
    with pytest.raises(RuntimeError, match="quiet ended with 0: no rank"):
        program.run(program.Finding.read(script))
