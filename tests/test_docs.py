"""The documentation is true: CI runs its commands, its examples run, and they print what it shows."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from pytest_vdist.options import TABLE

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(DOCS.glob("*.md"))
RUN_PAGES = ("writing-tests.md", "options.md", "programs.md", "faults.md", "limitations.md", "comparison.md")
EXECUTED = (ROOT / "README.md", *(DOCS / name for name in RUN_PAGES))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
VERSION = re.compile(r"torch \d[\w.+]*")
DURATION = re.compile(r"(ranks?), [\d.]+ m?s\) +")
NOTICES = re.compile(r"^.*\n(?:vdist: \d+ of \d+ ranks are ready\n)+", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: its language and its text."""

    language: str
    text: str


@dataclass(frozen=True)
class Example:
    """A command of a page, and the output that the page shows for it."""

    command: str
    output: str


def blocks_of(page: Path) -> list[Block]:
    return [Block(*match.groups()) for match in FENCE.finditer(page.read_text(encoding="utf-8"))]


def write_files(page: Path, folder: Path) -> None:
    """Write the page's blocks that open with their file's name."""
    for block in blocks_of(page):
        named = re.match(r"# (\S+\.(?:py|ini))\n", block.text)
        if named:
            (folder / named[1]).write_text(block.text, encoding="utf-8")


def examples_of(page: Path) -> Iterator[Example]:
    for block in blocks_of(page):
        if block.language == "console":
            command, _, output = block.text.removeprefix("$ ").partition("\n")
            yield Example(command, output)


def run_example(example: Example, folder: Path) -> str:
    """Run the command in the folder and return all that it prints."""
    words = shlex.split(example.command)
    assigned = dict(word.split("=", 1) for word in words if re.match(r"[A-Z_]+=", word))
    name, *arguments = words[len(assigned) :]
    assert name == "pytest"
    ours = ("VDIST_", "PYTEST_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
        cwd=folder,
        env={**environment, "COLUMNS": "80", **assigned},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=120,
    )
    return result.stdout


def pattern_of(output: str) -> re.Pattern[str]:
    """Return what matches the shown output.

    `...` stands for anything, torch may be of any version, and runs may take any time.
    """
    named = DURATION.sub(r"\1, DURATION", VERSION.sub("torch VERSION", output.strip("\n")))
    text = re.escape(named)
    for name, pattern in (("torch VERSION", r"torch \S+?"), ("DURATION", r"[\d.]+ m?s\) +"), ("...", ".*?")):
        text = text.replace(re.escape(name), pattern)
    return re.compile(text, re.DOTALL)


def without_notices(printed: str) -> str:
    """Return what pytest prints where ranks start at once: a busy machine may say how far they are."""
    return NOTICES.sub("", printed.strip("\n"))


def anchors_of(page: Path) -> set[str]:
    """Return the anchors of a page's headings, made as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path, text: str) -> list[str]:
    """Return the links of a page's text to files and headings that are not there."""
    broken = []
    for target in LINK.findall(FENCE.sub("", text)):
        place, _, anchor = target.partition("#")
        file = (page.parent / place) if place else page
        outside = place.startswith(("https://", "http://"))
        if not outside and not (file.exists() and (not anchor or anchor in anchors_of(file))):
            broken.append(target)
    return broken


def readme_commands() -> list[str]:
    return [block.text.strip() for block in blocks_of(ROOT / "README.md") if block.language == "sh"]


def test_the_readme_starts_with_two_commands_of_one_line() -> None:
    main_job, own_tests = readme_commands()
    assert "\n" not in main_job + own_tests
    assert main_job.endswith(".venv/bin/pytest --vdist-backend=cpu")
    assert own_tests.endswith(".venv/bin/pytest tests -n 4")


def test_ci_runs_the_commands_of_the_readme() -> None:
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert [command for command in readme_commands() if command not in lines] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file_or_a_heading(page: Path) -> None:
    assert broken_links(page, page.read_text(encoding="utf-8")) == []


def test_a_broken_link_is_found() -> None:
    page = DOCS / "options.md"
    text = "[a](options.md) [b](no-such.md) [c](#which-value-holds) [d](#no-such) [e](../README.md#no-such)"
    assert broken_links(page, text) == ["no-such.md", "#no-such", "../README.md#no-such"]


def test_every_page_is_reached_from_the_readme() -> None:
    links = set(LINK.findall((ROOT / "README.md").read_text(encoding="utf-8")))
    assert [page.name for page in sorted(DOCS.glob("*.md")) if f"docs/{page.name}" not in links] == []


def test_the_table_of_options_is_that_of_the_plugin() -> None:
    text = (DOCS / "options.md").read_text(encoding="utf-8")
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("| `--")]
    shown = [tuple(re.findall(r"`([^`]+)`", cell)[0].replace("\\|", "|") for cell in row[:4]) for row in rows]
    assert shown == [(f"{row.flag}={row.metavar}", row.variable, row.ini, row.default) for row in TABLE]


@pytest.mark.parametrize(
    ("page", "example"),
    [
        pytest.param(page, example, id=f"{page.stem}-{number}")
        for page in EXECUTED
        for number, example in enumerate(examples_of(page))
    ],
)
def test_an_example_prints_what_its_page_shows(page: Path, example: Example, tmp_path: Path) -> None:
    if "xpu' has no device" in example.output and torch.xpu.is_available():
        pytest.skip("this machine has the device that the example lacks")
    write_files(page, tmp_path)
    printed = run_example(example, tmp_path)
    assert pattern_of(example.output).fullmatch(without_notices(printed)), f"{example.command}\n{printed}"


def test_output_that_differs_from_the_page_is_found() -> None:
    shown = pattern_of("...\ngot 1\n...\ntorch 2.13.0+cpu, 3 ranks\n")
    assert shown.fullmatch("any\ngot 1\nany\nany\ntorch 2.11.0, 3 ranks")
    assert not shown.fullmatch("any\ngot 2\nany\nany\ntorch 2.11.0, 3 ranks")
    assert not shown.fullmatch("any\ngot 1\nany\nany\ntorch 2.11.0, 4 ranks")


def test_times_and_notices_of_a_slow_start_may_differ_from_the_page() -> None:
    shown = pattern_of("test_a.py::test_b PASSED (2 ranks, 3 ms)       [ 50%]")
    slow = "test_a.py::test_b \nvdist: 0 of 2 ranks are ready\nvdist: 1 of 2 ranks are ready\n"
    assert shown.fullmatch(without_notices(f"{slow}test_a.py::test_b PASSED (2 ranks, 1.2 s)      [ 50%]"))
    assert not shown.fullmatch(
        without_notices(f"{slow}test_a.py::test_b PASSED (4 ranks, 1.2 s)      [ 50%]")
    )


@pytest.mark.parametrize("page", EXECUTED, ids=lambda page: page.name)
def test_every_example_without_a_command_passes(page: Path, tmp_path: Path) -> None:
    commands = " ".join(example.command for example in examples_of(page))
    write_files(page, tmp_path)
    alone = sorted(file.name for file in tmp_path.glob("*.py") if file.name not in commands)
    if alone:
        command = f"pytest -q -W error {' '.join(alone)}"
        assert re.search(r"^\d+ passed in", run_example(Example(command, ""), tmp_path), re.MULTILINE), alone
