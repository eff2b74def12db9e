"""From the results of tests to a verdict for each profile, and to an exit code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pytest_vdist.certificate import outcomes
from pytest_vdist.certificate.outcomes import BAD, EXECUTED, RANKS_PER_DEVICE
from pytest_vdist.certificate.requirements import Level, Registry, registry

Result = Mapping[str, Any]
SPLIT, COMPILE, NUMERICS = "split", "compile", "numerics"


class Verdict(StrEnum):
    CONFORMANT = "conformant"
    WITH_WAIVERS = "conformant_with_waivers"
    PARTIAL = "partial"
    INCOMPLETE = "incomplete"
    NON_CONFORMANT = "non_conformant"
    ERROR = "error"


@dataclass(frozen=True)
class Circumstances:
    """What a verdict depends on beside the results.

    `left_out` says why a profile cannot be complete: axes that were restricted, a session that did not end;
    the key "" stands for every profile. `void` says what makes the whole session worthless: control mutants
    that passed, no proof that the implementation ran. `contradictions` are claims that a probe refuted.
    `part` says that there are other results elsewhere: nothing is complete, and nothing of theirs is missing.
    """

    profiles: Sequence[str]
    left_out: Mapping[str, Sequence[str]] = field(default_factory=dict)
    void: Sequence[str] = ()
    contradictions: Sequence[str] = ()
    part: str = ""


def profiles_of(
    requirements: Iterable[str], mode: Mapping[str, Any], known: Registry | None = None
) -> frozenset[str]:
    """Return the profiles for which a test counts in its mode.

    What runs with split_group counts for `split` only, what runs in another compile mode than eager for
    `compile` only: a defect of these modes is none of the core's. Without them it does not count for these.
    """
    modes = {
        *((SPLIT,) if mode.get("split_group") == "on" else ()),
        *((COMPILE,) if mode.get("compile") not in {None, "eager"} else ()),
    }
    if modes:
        return frozenset(modes)
    entries = (known or registry()).require(tuple(requirements))
    found = {name for entry in entries for name in entry.profiles}
    without = {
        *((SPLIT,) if mode.get("split_group") == "off" else ()),
        *((COMPILE,) if mode.get("compile") == "eager" else ()),
    }
    return frozenset(found - without)


def judge(
    results: Sequence[Result], circumstances: Circumstances, known: Registry | None = None
) -> dict[str, dict[str, Any]]:
    """Return the entry of every profile in the report: verdict, counts of outcomes, and the ids in question.

    `missing` are requirements of level MUST of which a test did not run, `unsupported` those of which none
    ran because a capability is not claimed, `failed` those that a test speaks against, at any level MUST;
    `should_failed` those of other levels, which do not gate.
    """
    known = known or registry()
    return {
        profile: _judge_profile(
            profile,
            [each for each in results if profile in profiles_of(each["requirements"], each["mode"], known)],
            circumstances,
            known,
        )
        for profile in circumstances.profiles
    }


def _judge_profile(
    profile: str, results: Sequence[Result], circumstances: Circumstances, known: Registry
) -> dict[str, Any]:
    by_requirement: dict[str, list[str]] = {}
    for result in results:
        for id_ in result["requirements"]:
            by_requirement.setdefault(id_, []).append(result["outcome"])
    musts = [
        id_
        for id_, entry in known.requirements.items()
        if entry.level is Level.MUST and (profile in entry.profiles or id_ in by_requirement)
    ]
    failed = [id_ for id_, found in by_requirement.items() if BAD & set(found)]
    unsupported = [id_ for id_ in musts if set(by_requirement.get(id_, ())) == {"unsupported"}]
    due = [id_ for id_ in musts if id_ in by_requirement] if circumstances.part else musts
    missing = [id_ for id_ in due if id_ not in unsupported and _lacks_a_run(by_requirement.get(id_, ()))]
    why = [*circumstances.left_out.get("", ()), *circumstances.left_out.get(profile, ())]
    why += [circumstances.part] if circumstances.part else []
    sharing = sum(map(shared_devices, results))
    why += [f"tests whose ranks shared devices: {sharing}"] if sharing else []
    contradicted = circumstances.contradictions if profile == NUMERICS else ()
    broken = [id_ for id_, found in by_requirement.items() if "error" in found]
    entry = {
        "counts": dict(Counter(result["outcome"] for result in results)),
        "missing": missing,
        "unsupported": unsupported,
        "failed": sorted(set(failed) & set(musts)),
        "should_failed": sorted(set(failed) - set(musts)),
        "incomplete_because": why,
        "contradicted": list(contradicted),
        "void_because": list(circumstances.void),
    }
    if circumstances.void or broken:
        verdict = Verdict.ERROR
    elif entry["failed"] or contradicted:
        verdict = Verdict.NON_CONFORMANT
    elif missing or why or not any(result["outcome"] in EXECUTED for result in results):
        verdict = Verdict.INCOMPLETE
    elif unsupported:
        verdict = Verdict.PARTIAL
    elif any(result["outcome"] == "waived" for result in results):
        verdict = Verdict.WITH_WAIVERS
    else:
        verdict = Verdict.CONFORMANT
    return {"verdict": verdict.value, **entry}


def shared_devices(result: Result) -> bool:
    """Tell whether ranks had devices in common: what is between these devices was not tested then."""
    return bool(result.get("properties", {}).get(RANKS_PER_DEVICE, 1) > 1)


def _lacks_a_run(found: Iterable[str]) -> bool:
    known = set(found)
    return "not_run" in known or not known & EXECUTED


def exit_code(
    results: Sequence[Result],
    profiles: Mapping[str, Mapping[str, Any]],
    *,
    pytest_code: int,
    waivers_in_error: bool,
    controls_missed: bool,
    part: bool = False,
) -> int:
    """Return the exit code of a certification; `pytest_code` is the one that pytest itself would end with.

    A `part` is not blamed for what others hold: only for what it should have tested itself.
    A test that fails speaks by the requirements that it checks: one that no MUST depends on does not gate.
    """
    found = {result["outcome"] for result in results}
    verdicts = {entry["verdict"] for entry in profiles.values()}
    codes = {pytest_code} - {outcomes.OK, outcomes.FAILED, outcomes.FLAKY, outcomes.CONTROL_MISSED}
    if any(entry["failed"] for entry in profiles.values()):
        codes |= {outcomes.FAILED} if "failed" in found else set()
        codes |= {outcomes.HANG_OR_CRASH} if found & {"hang", "crash"} else set()
        codes |= {outcomes.FLAKY} if "flaky" in found else set()
    if "error" in found:
        codes.add(outcomes.FAILED)
    if any(entry["contradicted"] for entry in profiles.values()):
        codes.add(outcomes.CONTRADICTED)
    if part:
        codes -= {outcomes.NO_TESTS} if not results else set()
        incomplete = any(each["missing"] or len(each["incomplete_because"]) > 1 for each in profiles.values())
    else:
        incomplete = Verdict.INCOMPLETE in verdicts or not found & EXECUTED
    if incomplete:
        codes.add(outcomes.INCOMPLETE)
    if waivers_in_error:
        codes.add(outcomes.BAD_WAIVER)
    if controls_missed or (Verdict.ERROR in verdicts and "error" not in found):
        codes.add(outcomes.CONTROL_MISSED)
    return outcomes.worst_code(codes)
