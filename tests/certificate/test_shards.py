"""Shards of one certification: merged into one verdict, and refused where they are not all of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_vdist import cli
from pytest_vdist.certificate.report.folder import read_report
from pytest_vdist.certificate.report.html import html_text
from pytest_vdist.certificate.report.shards import shard_entry
from pytest_vdist.certificate.report.verification import verify
from tests.certificate.sample_reports import conformant_results, session, write_folder

TESTS = conformant_results()
NAMES = [each["test"] for each in TESTS]
LIBRARIES = {"libraries": {"hypothesis": "6.170.15"}, "torch": "2.13.0+cpu"}


def write_shard(folder: Path, number: int, count: int, *, of: list[str] = NAMES, **changes: Any) -> Path:
    """Write what the job of one shard leaves, of `count` that take the tests in turn."""
    tests = [each for each in TESTS if each["test"] in of][number - 1 :: count]
    return write_folder(folder, tests, shard=shard_entry(number, count, of), **changes)


def merged(out: Path, *folders: Path) -> int:
    return cli.main(["merge", str(out), *map(str, folders)])


def test_shards_are_parts_until_they_are_merged_into_a_whole(tmp_path: Path) -> None:
    parts = [write_shard(tmp_path / str(number), number, 3) for number in (1, 2, 3)]
    code, told = verify(parts[1])
    assert code == 10
    assert told[-1] == "a part only, shard 2 of 3: `vdist merge` joins it with the others"
    report = read_report(parts[1])
    assert report["profiles"]["core"]["incomplete_because"] == ["shard 2 of 3: merge it with the others"]
    assert report["profiles"]["core"]["missing"] == []
    assert f"Shard 2 of 3, with {len(report['tests'])} of {len(TESTS)} tests" in html_text(report)
    assert merged(tmp_path / "out", parts[2], parts[0], parts[1]) == 0
    assert verify(tmp_path / "out")[0] == 0
    whole = read_report(tmp_path / "out")
    assert whole["shard"] is None
    assert sorted(each["test"] for each in whole["tests"]) == sorted(NAMES)
    assert {entry["verdict"] for entry in whole["profiles"].values()} == {"conformant"}


def test_a_requirement_that_no_shard_has_tested_is_missing_in_the_whole(tmp_path: Path) -> None:
    few = [name for name in NAMES if "test_bar.py" not in name]
    parts = [write_shard(tmp_path / str(number), number, 2, of=few) for number in (1, 2)]
    assert merged(tmp_path / "out", *parts) == 0
    profile = read_report(tmp_path / "out")["profiles"]["core"]
    assert profile["verdict"] == "incomplete"
    assert "VD-BAR-001" in profile["missing"]


def test_a_missing_shard_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = [write_shard(tmp_path / str(number), number, 3) for number in (1, 3)]
    assert merged(tmp_path / "out", *parts) == 4
    assert f"shard 2 of 3 is missing beside {parts[0]}, {parts[1]}: merge all" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_shards_of_other_tests_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = write_shard(tmp_path / "1", 1, 2)
    two = write_shard(tmp_path / "2", 2, 2, of=NAMES[:-1])
    assert merged(tmp_path / "out", one, two) == 4
    assert f"; {two} is shard 2 of 2 of other tests: its files, profiles, modes" in capsys.readouterr().err


def test_a_shard_stands_there_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = [write_shard(tmp_path / name, number, 2) for name, number in (("a", 1), ("b", 1), ("c", 2))]
    assert merged(tmp_path / "out", *parts) == 4
    assert f"{parts[0]} and {parts[1]} are both shard 1 of 2; name each shard once" in capsys.readouterr().err


def test_shards_that_overlap_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = write_folder(tmp_path / "1", TESTS[:-1], shard=shard_entry(1, 2, NAMES))
    two = write_folder(tmp_path / "2", TESTS[-2:], shard=shard_entry(2, 2, NAMES))
    assert merged(tmp_path / "out", one, two) == 4
    told = capsys.readouterr().err
    assert f"hold {len(NAMES) + 1} tests, {len(NAMES)} of them different; they are not the" in told


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"settings": [{"name": "--vdist-seed", "value": 1, "source": "command line"}]},
            "are shards of different runs, --vdist-backend is 'cpu' and None",
        ),
        (
            {"environment": {**LIBRARIES, "libraries": {"hypothesis": "6.1"}}},
            "are shards of different runs, library hypothesis is '6.170.15' and '6.1'",
        ),
        (
            {"suite": {**session(TESTS)["suite"], "requirements_digest": "0" * 64}},
            f"and '{'0' * 64}'; merge what was run of one suite",
        ),
        ({"suite": {**session(TESTS)["suite"], "digest": "0" * 64}}, "differ in suite.digest: "),
        ({"environment": {**LIBRARIES, "torch": "2.11.0"}}, "differ in environment.torch: '2.13.0+cpu' and"),
        ({"shard": shard_entry(2, 3, NAMES)}, "shards of different runs, the number of shards is 2 and 3"),
    ],
    ids=["settings", "libraries", "requirements", "tree", "torch", "count"],
)
def test_shards_of_other_runs_are_refused(
    changes: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = write_shard(tmp_path / "1", 1, 2)
    two = write_folder(tmp_path / "2", TESTS[1::2], **{"shard": shard_entry(2, 2, NAMES), **changes})
    assert merged(tmp_path / "out", one, two) == 4
    assert message in capsys.readouterr().err
