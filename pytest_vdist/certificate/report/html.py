"""report.html: one page that needs no network, made from the report and the texts of the requirements."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jinja2

from pytest_vdist.certificate import requirements
from pytest_vdist.certificate.report.folder import Report, report_text
from pytest_vdist.certificate.report.plots import plots, size_text

OUTCOMES = ("error", "crash", "hang", "failed", "flaky", "waived", "not_run", "unsupported", "passed")
"""From the worst to the best, as the page sorts them."""
_VERDICTS = ("error", "non_conformant", "incomplete", "partial", "conformant_with_waivers", "conformant")
_NONE = "\N{EN DASH}"
_PAGE = Path(__file__).with_name("page")
_TITLES = {
    "conformant": "Conformant",
    "conformant_with_waivers": "Conformant with waivers",
    "partial": "Partly conformant",
    "non_conformant": "Not conformant",
    "incomplete": "Incomplete",
    "error": "No verdict",
}


def write_html(report: Report, path: Path) -> None:
    """Write the page of a report. The same report gives the same bytes."""
    path.write_bytes(html_text(report).encode("utf-8"))


def html_text(report: Report) -> str:
    """Return the page of a report, which does not depend on the order of its keys."""
    report = json.loads(report_text(report))
    script = _asset("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    return _template().render(
        report=report,
        verdict=worst_verdict(report),
        titles=_TITLES,
        sentences={name: verdict_sentence(each) for name, each in report["profiles"].items()},
        outcomes=OUTCOMES,
        counts=Counter(test["outcome"] for test in report["tests"]),
        plots=plots(report["bandwidth"]),
        capabilities=_capability_rows(report["capabilities"]),
        style=_asset("report.css"),
        script=script,
        script_digest=digest,
        data=_embedded(report),
    )


def worst_verdict(report: Report) -> str:
    """Return the worst verdict of the profiles; "incomplete" where there is none."""
    verdicts = {profile["verdict"] for profile in report["profiles"].values()}
    return next((each for each in _VERDICTS if each in verdicts), "incomplete")


def verdict_sentence(profile: Mapping[str, Any]) -> str:
    """Return what the verdict of a profile means, in one sentence."""
    failed, missing = len(profile["failed"]), len(profile["missing"])
    waived = profile["counts"].get("waived", 0)
    return {
        "conformant": "Every requirement of the profile was tested and is met.",
        "conformant_with_waivers": f"Every requirement is met, but for {_number(waived, 'test')} "
        f"that failed and {'is' if waived == 1 else 'are'} waived, see the waivers.",
        "partial": "What the device claims was tested and is met; it does not claim the whole profile.",
        "non_conformant": f"{_number(failed, 'requirement')} failed.",
        "incomplete": f"Not everything was tested ({missing} missing): "
        f"what was not tested does not count as met."
        if missing
        else "Every requirement was tested, but not as a certificate asks.",
        "error": "The tests themselves went wrong, so nothing is said about the device.",
    }[profile["verdict"]]


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _capability_rows(capabilities: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return each capability with what is declared and observed; those that disagree come first."""
    declared, observed = (dict(_flat(capabilities[side])) for side in ("declared", "observed"))
    rows = [
        {
            "name": name,
            "declared": declared.get(name, _NONE),
            "observed": observed.get(name, _NONE),
            "differs": name in declared and name in observed and declared[name] != observed[name],
        }
        for name in sorted({*declared, *observed})
    ]
    return sorted(rows, key=lambda row: not row["differs"])


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for name, value in table.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value_text(value)


def value_text(value: object) -> str:
    """Return a value of a report as one reads it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(value_text(each) for each in value) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{name}: {each}" for name, each in _flat(value)) or "none"
    return _NONE if value is None else str(value)


def _embedded(report: Report) -> str:
    """Return the tests as JSON that no text in it can end: `<`, `>` and `&` are escaped in it."""
    modes: dict[str, int] = {}
    tests = [
        [
            test["test"],
            test["requirements"],
            OUTCOMES.index(test["outcome"]),
            modes.setdefault(mode_text(test["mode"]), len(modes)),
            test["world_sizes"],
            test["seconds"],
            test.get("margin"),
            test["reason"],
            test["failure"],
        ]
        for test in report["tests"]
    ]
    known = requirements.registry().requirements
    named = sorted({id_ for test in report["tests"] for id_ in test["requirements"]})
    texts = {id_: known[id_].text for id_ in named if id_ in known}
    data = {"outcomes": OUTCOMES, "modes": list(modes), "texts": texts, "tests": tests}
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def mode_text(mode: Mapping[str, Any]) -> str:
    """Return a mode as one reads it: cpu · split_group · inductor."""
    subgroups = {"on": "split_group", "off": "new_group"}.get(mode.get("split_group") or "", "")
    return " · ".join(part for part in (mode["backend"], subgroups, mode.get("compile") or "") if part)


def _asset(name: str) -> str:
    return (_PAGE / name).read_text(encoding="utf-8")


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_PAGE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(value=value_text, flat=lambda table: list(_flat(table)), size=size_text)
    return environment.get_template("report.html.j2")
