"""Results of several runs as one, and the record of kills that reports tell."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pytest_vdist.cli import main
from pytest_vdist.mutation import record, reports
from pytest_vdist.mutation.command import tree_now
from pytest_vdist.mutation.merging import merge_files
from pytest_vdist.mutation.record import Tree, kill_score, read_record
from pytest_vdist.mutation.results import Fate, Kill, Result
from pytest_vdist.reference_impl.mutants import MUTANTS

NOW = Tree("1.0", "abc")
NAMES = list(MUTANTS)


def result(mutant: str, backend: str = "cpu", fate: Fate = Fate.KILLED) -> Result:
    kill = Kill("suites/a/test_b.py::test_c", ("VD-AR-001",), "failed", "no") if fate is Fate.KILLED else None
    return Result(mutant, backend, "values", ("VD-AR-001",), fate, 1.0, 1, kill)


def write(path: Path, *results: Result, **about: Any) -> Path:
    path.write_text(reports.json_text(reports.Summary.of(results, (), (), 2.0), about))
    return path


def test_each_mutant_counts_once_on_the_cpu_where_it_shows_there(tmp_path: Path) -> None:
    one = write(
        tmp_path / "cpu.json",
        result("a"),
        result("b", fate=Fate.SURVIVED),
        result("c", fate=Fate.SURVIVED),
        result("gone"),
    )
    two = write(
        tmp_path / "simdev.json",
        result("a", "simdev"),
        result("b", "simdev"),
        result("c", "simdev", Fate.HARNESS),
        result("d", "simdev"),
        date="2026-11-22",
    )
    merged = merge_files([two, one], ["d", "c", "b", "a", "e"], today="2026-11-21")
    found = [(each.mutant, each.backend, each.fate) for each in merged.results]
    assert found == [
        ("d", "simdev", Fate.KILLED),
        ("c", "cpu", Fate.SURVIVED),
        ("b", "simdev", Fate.KILLED),
        ("a", "cpu", Fate.KILLED),
    ]
    assert (merged.unknown, merged.date, merged.seconds) == (("gone",), "2026-11-22", 4.0)


def test_of_two_runs_of_the_same_the_last_file_counts(tmp_path: Path) -> None:
    old, new = write(tmp_path / "old", result("a")), write(tmp_path / "new", result("a", fate=Fate.SURVIVED))
    assert [each.fate for each in merge_files([old, new], ["a"], "").results] == [Fate.SURVIVED]
    assert [each.fate for each in merge_files([new, old], ["a"], "").results] == [Fate.KILLED]


def recorded(*results: Result) -> dict[str, Any]:
    about = {"trees": [NOW.to_json()], "date": "2026-11-23"}
    data: dict[str, Any] = json.loads(reports.json_text(reports.Summary.of(results, (), (), 2.0), about))
    return data


def test_a_record_of_all_mutants_gives_the_score_and_says_whether_the_suites_are_the_same() -> None:
    told = recorded(result("a"), result("b", fate=Fate.SURVIVED))
    score = {"date": "2026-11-23", "stale": [], "killed": 1, "mutants": 2, "score": 0.5}
    assert kill_score(told, ["a", "b"], NOW) == {**score, "same_suites": True}
    assert kill_score(told, ["b", "a"], Tree("1.0", "other")) == {**score, "same_suites": False}
    assert kill_score(None, ["a"], NOW) is None


@pytest.mark.parametrize(
    ("mutants", "now", "why"),
    [
        (["a", "b", "new"], NOW, "1 mutants were not run, such as new"),
        (["a"], NOW, "1 mutants are no more, such as b"),
        (["a", "b"], Tree("1.1", "abc"), "it is of version 1.0, this is 1.1"),
    ],
)
def test_a_stale_record_gives_no_score(mutants: list[str], now: Tree, why: str) -> None:
    told = recorded(result("a"), result("b"))
    assert kill_score(told, mutants, now) == {"date": "2026-11-23", "stale": [why]}


def test_the_record_of_the_package_names_the_mutants_that_there_are_or_is_told_to_be_stale() -> None:
    shipped = read_record()
    assert shipped is not None, "run: vdist mutants --merge FILE… --record"
    assert shipped["schema"] == reports.SCHEMA
    told = kill_score(shipped, MUTANTS, tree_now())
    assert told is not None
    exact = sorted(each["mutant"] for each in shipped["results"]) == sorted(MUTANTS)
    assert ("score" in told) == exact == (not told["stale"])


def test_the_matrix_of_the_documentation_is_what_the_record_says() -> None:
    page = (Path(__file__).parents[2] / "docs" / "mutants.md").read_text(encoding="utf-8")
    matrix = page.partition(reports.BEGIN)[2].partition(reports.END)[0]
    shown = dict(re.findall(r"^\| `(\w+)`: .* \| (\w+) \| [^|]+ \| \w+ \|$", matrix, re.MULTILINE))
    shipped = read_record()
    assert shipped is not None
    assert shown == {each["mutant"]: each["backend"] for each in shipped["results"]}, (
        f"run: vdist mutants --merge {record.RECORD_FILE} --markdown docs/mutants.md"
    )


def test_merged_files_become_page_and_record_and_what_was_not_run_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "RECORD_FILE", tmp_path / "kills.json")
    file = write(tmp_path / "r.json", *map(result, NAMES[1:]), trees=[NOW.to_json()])
    page = tmp_path / "page.md"
    page.write_text(f"before\n{reports.BEGIN}\nyesterday\n{reports.END}\nafter\n")
    line = ["mutants", "--merge", str(file), "--record", f"--markdown={page}"]
    assert main(line) == 15
    out, count = capsys.readouterr().out, len(NAMES)
    assert f"{count - 1} of {count} mutants killed, score " in out
    assert "100.0 %" not in out
    assert f"not run: {NAMES[0]}" in out
    text = page.read_text()
    assert text.startswith(f"before\n{reports.BEGIN}\n\n{count - 1} of {count} mutants killed")
    assert f"Not run: `{NAMES[0]}`." in text
    assert "yesterday" not in text
    assert text.endswith(f"\n{reports.END}\nafter\n")
    kept = tmp_path / "kills.json"
    assert [each["mutant"] for each in json.loads(kept.read_text())["results"]] == NAMES[1:]
    last = write(tmp_path / "last.json", result(NAMES[0], "simdev"))
    assert main(["mutants", "--merge", str(kept), str(last), "--record"]) == 0
    assert json.loads(kept.read_text())["trees"] == [NOW.to_json(), Tree(None, None).to_json()]
    assert f"{count} of {count} mutants killed, score 100.0 %" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--merge", "no.json"], "cannot read results from no.json: "),
        (["--merge", "other.json"], "other.json holds no results of mutants: `vdist mutants --json "),
        (["--requirement=VD-AR-001", "--merge", "r.json"], "--merge takes the files as they are, got a sel"),
        (["sum_is_zero", "--record"], "--record is for all mutants, got a selection"),
    ],
)
def test_what_cannot_be_merged_or_recorded_is_refused(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.json").write_text("{}")
    assert main(["mutants", *arguments]) == 4
    assert message in capsys.readouterr().err
