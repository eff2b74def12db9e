"""What changed from one report to the next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pytest_vdist.certificate.outcomes import EXECUTED
from pytest_vdist.certificate.report.folder import Report
from pytest_vdist.certificate.report.html import value_text

SCHEMA = "vdist-diff/1"
REGRESSION = 14
_BAD = frozenset({"failed", "hang", "crash", "error", "flaky"})
_MARGIN_STEP = 0.1
_SPEED_STEP = 0.2
_MOST = 20


@dataclass(frozen=True)
class Differences:
    """Each entry is a line that names a test, a capability or a measurement, and what it was and is."""

    newly_failing: tuple[str, ...]
    lost_coverage: tuple[str, ...]
    newly_waived: tuple[str, ...]
    fixed: tuple[str, ...]
    new_coverage: tuple[str, ...]
    changed_verdicts: tuple[str, ...]
    changed_capabilities: tuple[str, ...]
    changed_margins: tuple[str, ...]
    changed_speeds: tuple[str, ...]

    @property
    def is_regression(self) -> bool:
        """Whether something fails, or is no longer tested, that was all right."""
        return bool(self.newly_failing or self.lost_coverage)

    def to_json(self) -> dict[str, Any]:
        return {"schema": SCHEMA, "regression": self.is_regression, **asdict(self)}

    def text(self) -> str:
        """Return the differences under headings; no more than 20 under each."""
        lines = []
        for heading, entries in asdict(self).items():
            if entries:
                lines += [f"{heading.replace('_', ' ')} ({len(entries)}):"]
                lines += [f"  {entry}" for entry in entries[:_MOST]]
                lines += [f"  … and {len(entries) - _MOST} more"] if len(entries) > _MOST else []
        return "\n".join(lines) or "no differences"


def compare(old: Report, new: Report) -> Differences:
    """Return what changed. A margin counts from a change of 0.1, a speed from one of 20 %."""
    before, after = ({test["test"]: test for test in each["tests"]} for each in (old, new))
    outcome = {name: (_outcome(before, name), _outcome(after, name)) for name in sorted({*before, *after})}

    def chosen(keep: Any) -> tuple[str, ...]:
        return tuple(f"{name}: {a} -> {b}" for name, (a, b) in outcome.items() if keep(a, b))

    return Differences(
        newly_failing=chosen(lambda a, b: b in _BAD and a not in _BAD),
        lost_coverage=chosen(lambda a, b: a in EXECUTED and b not in EXECUTED | {"error"}),
        newly_waived=chosen(lambda a, b: b == "waived" and a != "waived"),
        fixed=chosen(lambda a, b: b == "passed" and a in _BAD | {"waived"}),
        new_coverage=chosen(lambda a, b: b in EXECUTED and a not in EXECUTED | {"error"}),
        changed_verdicts=_changed(_verdicts(old), _verdicts(new)),
        changed_capabilities=_changed(_capabilities(old), _capabilities(new)),
        changed_margins=_margins(before, after),
        changed_speeds=_speeds(old, new),
    )


def _outcome(tests: Mapping[str, Any], name: str) -> str:
    return tests[name]["outcome"] if name in tests else "absent"


def _verdicts(report: Report) -> dict[str, str]:
    return {name: entry["verdict"] for name, entry in report["profiles"].items()}


def _capabilities(report: Report) -> dict[str, str]:
    return {
        f"{side} {name}": value_text(value)
        for side in ("declared", "observed")
        for name, value in report["capabilities"][side].items()
    }


def _changed(old: Mapping[str, str], new: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(
        f"{name}: {old.get(name, 'absent')} -> {new.get(name, 'absent')}"
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    )


def _margins(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, ...]:
    found = []
    for name in sorted(before.keys() & after.keys()):
        old, new = before[name].get("margin"), after[name].get("margin")
        if old is not None and new is not None and abs(new - old) >= _MARGIN_STEP:
            found.append(f"{name}: {old:.3f} -> {new:.3f}")
    return tuple(found)


def _speeds(old: Report, new: Report) -> tuple[str, ...]:
    before, after = (
        {(point["collective"], point["bytes"], point["ranks"]): point for point in each["bandwidth"]}
        for each in (old, new)
    )
    found = []
    for key in sorted(before.keys() & after.keys()):
        one, other = before[key]["latency_us"], after[key]["latency_us"]
        if abs(other - one) > _SPEED_STEP * one:
            name, size, ranks = key
            speeds = f"{before[key]['busbw']:.3g} -> {after[key]['busbw']:.3g} GB/s"
            found.append(
                f"{name} of {size} bytes on {ranks} ranks: {one:.1f} us -> {other:.1f} us, bus {speeds}"
            )
    return tuple(found)
