"""Paths in reports: what they name, and what they leave alone."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest

from pytest_vdist.certificate.suites import SUITES
from pytest_vdist.certification.places import Places

PURELIB = sysconfig.get_path("purelib")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("{root}/a/test_b.py:3: in body", "a/test_b.py:3: in body"),
        ("rootdir: {root}, configfile", "rootdir: ., configfile"),
        ("--vdist-impl={root}/x.py:factory", "--vdist-impl=x.py:factory"),
        ("'{root}/x' and '{root}/y'", "'x' and 'y'"),
        ("{root}-old/x {root}2/y /other{root}/z", "{root}-old/x {root}2/y /other{root}/z"),
        ("{root}/reports/out/report.html", "out/report.html"),
        (f"{PURELIB}/torch/nn.py", "site-packages/torch/nn.py"),
        (f"{SUITES}/groups/test_a.py", "suites/groups/test_a.py"),
        ("/elsewhere/key.pem", "/elsewhere/key.pem"),
        ("and/or, 1/2, ~/x, no path", "and/or, 1/2, ~/x, no path"),
    ],
)
def test_a_path_is_shown_as_far_as_readers_need_it(text: str, shown: str, pytester: pytest.Pytester) -> None:
    root = str(pytester.path)
    places = Places.of(pytester.parseconfig(), pytester.path / "reports" / "out")
    assert places.text(text.format(root=root)) == shown.format(root=root)


def test_paths_are_found_in_all_parts_of_a_value(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert Path.home() == Path("/home/somebody")
    places = Places.of(pytester.parseconfig(), Path("out"))
    value = {"/home/somebody": ["/home/somebody/.cache", 1, None, {"x": f"{pytester.path}/y"}]}
    assert places.shown(value) == {"~": ["~/.cache", 1, None, {"x": "y"}]}
