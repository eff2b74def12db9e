"""What docs/certification.md shows as files is right."""

from __future__ import annotations

import re
from pathlib import Path

from pytest_vdist.certificate.manifest import parse_manifest
from pytest_vdist.certificate.requirements import registry
from pytest_vdist.certificate.verdict import Verdict
from pytest_vdist.certificate.waivers import parse_waivers

PAGE = (Path(__file__).parent.parent.parent / "docs" / "certification.md").read_text(encoding="utf-8")
FILES = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)


def test_the_files_of_the_page_can_be_read() -> None:
    manifest, waivers = FILES
    assert parse_manifest(manifest, source="page").order == "fixed"
    (waiver,) = parse_waivers(waivers, source="page")
    mode = {"split_group": "off", "world_size": 4}
    assert waiver.covers("collectives/test_reduce_scatter.py::test_x[mydev-4-new_group]", ["VD-RS-004"], mode)


def test_the_page_names_every_profile_and_every_verdict() -> None:
    named = set(re.findall(r"^\| `([\w-]+)` \|", PAGE, re.MULTILINE))
    assert named >= {*registry().profiles, *Verdict}
