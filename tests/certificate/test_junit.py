"""JUnit files of sessions that were killed, and of several folders."""

from __future__ import annotations

import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from pytest_vdist import cli
from pytest_vdist.certificate.outcomes import Outcome
from pytest_vdist.certificate.report import junit
from pytest_vdist.certificate.report.folder import ReportError
from tests.certificate.sample_reports import conformant_results, result, write_folder

TAGS = {
    "not_run": "skipped",
    "unsupported": "skipped",
    "waived": "skipped",
    "flaky": "failure",
    "failed": "failure",
    "hang": "failure",
    "crash": "failure",
    "error": "error",
}


def test_each_outcome_has_its_element_and_its_reason() -> None:
    results = [result(f"few/test_few.py::test_{each}[cpu-2]", each) for each in Outcome]
    (suite,) = ET.fromstring(junit.text_of(results))
    assert {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "9",
        "failures": "4",
        "errors": "1",
        "skipped": "3",
    }
    for case, outcome in zip(suite, Outcome, strict=True):
        assert (case.get("classname"), case.get("name")) == ("suites.few.test_few", f"test_{outcome}[cpu-2]")
        properties = {each.get("name"): each.get("value") for each in case.iter("property")}
        assert properties == {"vdist.runs": "1"}
        told = [child for child in case if child.tag != "properties"]
        assert [child.tag for child in told] == ([TAGS[outcome]] if outcome in TAGS else [])
        assert all(child.get("message") for child in told)


def test_what_xml_cannot_say_is_left_out() -> None:
    failed = result("few/test_few.py::test_it", "failed")
    failed["failure"] |= {"headline": "rank 1: \x1b[31m<red> & \x00", "text": "a\x08b\ufffe\udc80\n"}
    (failure,) = ET.fromstring(junit.text_of([failed])).iter("failure")
    assert (failure.get("message"), failure.text) == ("rank 1: [31m<red> & ", "ab\n")


def test_a_shard_that_was_killed_can_be_verified_and_merged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tests = conformant_results()
    whole = write_folder(tmp_path / "whole", tests)
    killed = write_folder(tmp_path / "killed", tests, finished=None)
    for name in ("SHA256SUMS", "report.json", "report.html"):
        (killed / name).unlink()
    (killed / "junit.xml").write_text("<testsuites><testsuite")
    lines = (killed / "results.jsonl").read_text().splitlines(keepends=True)
    (killed / "results.jsonl").write_text("".join(lines[:-1]))
    assert cli.main(["report", str(killed)]) == 0
    assert cli.main(["verify", str(killed)]) == 10, capsys.readouterr().out
    assert len(list(ET.parse(killed / "junit.xml").iter("testcase"))) == len(tests)
    assert cli.main(["merge", str(tmp_path / "out"), str(whole), str(killed)]) == 0
    assert len(list(ET.parse(tmp_path / "out" / "junit.xml").iter("testcase"))) == 2 * len(tests)


def test_a_file_that_is_no_xml_is_named(tmp_path: Path) -> None:
    (tmp_path / "junit.xml").write_text("<testsuites>")
    with pytest.raises(ReportError, match=r"junit\.xml is no XML: no element found.*run `vdist report "):
        junit.joined([tmp_path / "junit.xml"])
    assert not junit.is_whole(tmp_path / "junit.xml")
    assert not junit.is_whole(tmp_path / "nothing.xml")


def test_a_folder_that_cannot_be_merged_leaves_nothing(tmp_path: Path) -> None:
    folders = [write_folder(tmp_path / name, conformant_results()) for name in ("a", "b")]
    shutil.move(folders[1] / "junit.xml", tmp_path)
    sums = folders[1] / "SHA256SUMS"
    sums.write_text(
        "".join(line for line in sums.read_text().splitlines(keepends=True) if "junit" not in line)
    )
    assert cli.main(["merge", str(tmp_path / "out"), *map(str, folders)]) == 4
    assert not (tmp_path / "out").exists()
