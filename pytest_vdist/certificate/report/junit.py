"""JUnit files: of a session that did not live to write its own, and of several as one."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_vdist.certificate.report.folder import ReportError, read_text

_HEAD = '<?xml version="1.0" encoding="utf-8"?>\n'
_SKIPPED = frozenset({"not_run", "unsupported", "waived"})
_NO_CHARACTERS = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot say: https://www.w3.org/TR/xml/#charsets."""


def text_of(results: Sequence[Mapping[str, Any]]) -> str:
    """Return the text of a JUnit file that says what results say, in their order."""
    suite = ET.Element("testsuite", name="pytest")
    cases = [_add(suite, result) for result in results]
    for attribute, tag in (("errors", "error"), ("failures", "failure"), ("skipped", "skipped")):
        suite.set(attribute, str(sum(case.find(tag) is not None for case in cases)))
    suite.set("tests", str(len(cases)))
    suite.set("time", f"{sum(result['seconds'] for result in results):.3f}")
    whole = ET.Element("testsuites")
    whole.append(suite)
    return _HEAD + ET.tostring(whole, encoding="unicode") + "\n"


def joined(files: Sequence[Path]) -> str:
    """Return the text of one JUnit file with the suites of all."""
    whole = ET.Element("testsuites")
    for file in files:
        root = _parsed(file)
        whole.extend([root] if root.tag == "testsuite" else list(root))
    return _HEAD + ET.tostring(whole, encoding="unicode") + "\n"


def is_whole(file: Path) -> bool:
    """Tell whether a JUnit file is there, to its end."""
    try:
        return bool(_parsed(file).tag)
    except ReportError:
        return False


def _parsed(file: Path) -> ET.Element:
    try:
        return ET.fromstring(read_text(file))  # noqa: S314 - its sum agrees with the folder's
    except ET.ParseError as error:
        raise ReportError(
            f"{file} is no XML: {error}; if its session was killed, remove it and the report, "
            f"and run `vdist report {file.parent}`"
        ) from error


def _add(suite: ET.Element, result: Mapping[str, Any]) -> ET.Element:
    module, _, name = result["test"].partition("::")
    of_module = f"suites.{module.removesuffix('.py').replace('/', '.')}"
    case = ET.SubElement(suite, "testcase", classname=of_module, name=name, time=f"{result['seconds']:.3f}")
    if result["properties"]:
        properties = ET.SubElement(case, "properties")
        for key, value in result["properties"].items():
            ET.SubElement(properties, "property", name=key, value=_clean(value))
    outcome, failure = result["outcome"], result["failure"]
    if outcome in _SKIPPED:
        ET.SubElement(case, "skipped", type=f"vdist.{outcome}", message=_clean(result["reason"]))
    elif failure is not None or outcome != "passed":
        told = failure or {"headline": result["reason"], "text": ""}
        tag = "error" if outcome == "error" else "failure"
        ET.SubElement(case, tag, message=_clean(told["headline"])).text = _clean(told["text"])
    return case


def _clean(value: object) -> str:
    return _NO_CHARACTERS.sub("", str(value))
