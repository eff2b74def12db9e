"""Reports and folders as a session of certification leaves them, made from the registry."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from pathlib import Path
from typing import Any

from pytest_vdist.certificate.report import folder as names
from pytest_vdist.certificate.report.folder import Report, report_text, results_text
from pytest_vdist.certificate.report.html import write_html
from pytest_vdist.certificate.report.sums import write_sums
from pytest_vdist.certificate.requirements import REGISTRY_FILE, registry

FAILURE = """rank 1: AssertionError: all_reduce of bfloat16 is out of bounds
    sum of 4 ranks, element 4095 of 4096
    got       0x3f81  (1.0078125)
    expected  0x3f7f to 0x3f80  (0.99609375 to 1.0)
    margin    3.7 of the bound

  File "collectives/test_all_reduce.py", line 41, in body
    assert_cases(group, cases)
"""
HANG = """rank 2 did not answer within 60 s
    ranks 0, 1, 3 wait in barrier, operation 18 of group world
    rank 2 is at operation 17, broadcast of group world
"""
MANIFEST = 'schema = "vdist-manifest/1"\n'


def result(
    test: str,
    outcome: str = "passed",
    *,
    requirement: str = "VD-AR-001",
    world_size: int = 2,
    margin: float | None = None,
    split_group: str = "off",
    compile_mode: str = "eager",
    seconds: float = 0.12,
) -> dict[str, Any]:
    """Return one line of results.jsonl."""
    bad = outcome in {"failed", "hang", "crash", "error", "waived", "flaky"}
    reasons = {
        "unsupported": "the manifest says no: subgroups by split_group",
        "not_run": "not run: needs world size >= 4, selected 1, 2",
        "waived": "W-acme-0007: the sum of bfloat16 rounds at every hop",
    }
    failure = {
        "headline": "rank 2 did not answer within 60 s"
        if outcome == "hang"
        else "rank 1: all_reduce of bfloat16 is out of bounds",
        "text": HANG if outcome == "hang" else FAILURE,
        "rank": 2 if outcome == "hang" else 1,
        "reproduce": f"pytest --vdist-backend=cpu --vdist-world-sizes={world_size} 'suites/{test}'",
    }
    return {
        "test": test,
        "requirements": [requirement],
        "outcome": outcome,
        "mode": {"backend": "cpu", "split_group": split_group, "compile": compile_mode},
        "world_sizes": [] if outcome == "not_run" else [world_size],
        "seconds": seconds,
        "seconds_on_ranks": seconds * 0.8,
        "reason": reasons.get(outcome, ""),
        "failure": failure if bad else None,
        "margin": margin,
        "properties": {"vdist.runs": 1},
    }


def results(count: int, *, bad: bool = True) -> list[dict[str, Any]]:
    """Return so many results, of all requirements, modes and world sizes, and of all outcomes if `bad`."""
    rare = ("failed", "hang", "crash", "error", "unsupported", "not_run", "waived", "flaky")
    modes = itertools.cycle(itertools.product(("off", "on"), ("eager", "inductor"), (1, 2, 3, 4)))
    found = []
    for index, requirement in zip(
        range(count), itertools.cycle(registry().requirements.values()), strict=False
    ):
        split, compiled, size = next(modes) if index % 7 else next(itertools.islice(modes, 1, None))
        group = "split_group" if split == "on" else "new_group"
        name = f"{requirement.chapter}/test_{requirement.area.lower()}.py::test_{index}"
        draw = hashlib.sha256(name.encode()).digest()
        outcome = rare[draw[1] % len(rare)] if bad and draw[0] < 12 else "passed"
        found.append(
            result(
                f"{name}[cpu-{size}-{group}-{compiled}]",
                outcome,
                requirement=requirement.id,
                world_size=size,
                margin=round(draw[2] / 256, 3) if draw[3] < 64 else None,
                split_group=split,
                compile_mode=compiled,
                seconds=draw[4] / 100,
            )
        )
    return found


def bandwidth() -> list[dict[str, Any]]:
    """Return measurements of four collectives on 2 and 4 ranks, from 8 bytes to 64 MiB."""
    transfers = {"all_reduce": 2, "all_gather": 1, "reduce_scatter": 1, "broadcast": 0}
    points = []
    for (collective, times), ranks, power in itertools.product(
        transfers.items(), (2, 4), (3, 10, 16, 20, 24, 26)
    ):
        seconds = 2.2e-5 * ranks + 2**power / (3e9 + 1e9 * times)
        algbw = 2**power / seconds / 1e9
        points.append(
            {
                "collective": collective,
                "bytes": 2**power,
                "ranks": ranks,
                "latency_us": round(seconds * 1e6, 2),
                "algbw": algbw,
                "busbw": algbw * (times * (ranks - 1) / ranks if times else 1),
            }
        )
    return points


def report(tests: list[dict[str, Any]] | None = None, **changes: Any) -> Report:
    """Return a report of these tests; the verdicts follow from them as simply as can be."""
    tests = results(400) if tests is None else tests
    counts = Counter(each["outcome"] for each in tests)
    failed = sorted(
        {r for t in tests if t["outcome"] in {"failed", "hang", "crash"} for r in t["requirements"]}
    )
    missing = sorted({r for t in tests if t["outcome"] == "not_run" for r in t["requirements"]})
    verdict = "non_conformant" if failed else "incomplete" if missing else "conformant"
    whole: Report = {
        "schema": "vdist-report/1",
        "suite": {
            "version": "0.1.0",
            "spec_version": "2026.1",
            "requirements_digest": hashlib.sha256(REGISTRY_FILE.read_bytes()).hexdigest(),
            "kill_score": {"score": 1.0, "killed": 214, "mutants": 214},
        },
        "started": "2026-11-22T12:00:00Z",
        "finished": "2026-11-22T12:14:31Z",
        "implementation": {
            "name": "reference",
            "backend": "cpu",
            "device_names": ["AMD EPYC 9B14"],
            "proof": {
                "communicator": "CpuCommunicator",
                "process_group": "ProcessGroupGloo",
                "operations": 182_334,
            },
        },
        "environment": {
            "torch": "2.13.0+cpu",
            "python": "3.11.15",
            "pytest": "9.2.0",
            "platform": "Linux-6.1-x86_64",
            "libraries": {"gloo": "of torch 2.13.0+cpu", "hypothesis": "6.170.15"},
        },
        "settings": [
            {"name": "--vdist-backend", "value": "cpu", "source": "command line"},
            {"name": "--vdist-split-group", "value": "both", "source": "command line"},
            {"name": "--vdist-timeout", "value": "60", "source": "default"},
        ],
        "seeds": {"vdist_seed": 0},
        "capabilities": {
            "declared": {"numerics.accumulate.bf16": "fp32", "split_group": True, "fp8": []},
            "observed": {"numerics.accumulate.bf16": "bf16", "split_group": True, "fp8": []},
        },
        "waivers": [
            {
                "requirement": "VD-AR-003",
                "scope": {"dtypes": ["bfloat16"]},
                "issue": "https://example.org/acme/issues/7",
                "owner": "ada@example.org",
                "reason": "the sum of bfloat16 rounds at every hop",
                "expires": "2027-02-20",
                "state": "used",
            }
        ],
        "profiles": {
            "core": {"verdict": verdict, "counts": dict(counts), "missing": missing, "failed": failed},
            "numerics": {"verdict": "conformant", "counts": {"passed": 31}, "missing": [], "failed": []},
        },
        "controls": [
            {"name": "drop_rank", "caught": True, "by": "collectives/test_all_reduce.py::test_sum[cpu-2]"},
            {"name": "lsb_flip", "caught": True, "by": "collectives/test_all_reduce.py::test_sum[cpu-2]"},
            {"name": "late_rank", "caught": True, "by": "timeouts/test_late.py::test_late[cpu-2]"},
        ],
        "bandwidth": bandwidth(),
        "tests": tests,
    }
    return {**whole, **changes}


def write_folder(folder: Path, whole: Report, *, page: bool = True) -> Path:
    """Write the folder of a certificate with this report."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names.RESULTS).write_text(results_text(whole["tests"]))
    (folder / names.REPORT).write_text(report_text(whole))
    ids = [each["test"] for each in whole["tests"]]
    (folder / names.MUST_PASS).write_text("".join(f"{each}\n" for each in ids))
    cases = "".join('<testcase classname="t" name="n"/>' for _ in ids)
    (folder / names.JUNIT).write_text(
        f'<testsuites><testsuite name="pytest">{cases}</testsuite></testsuites>\n'
    )
    (folder / names.MANIFEST).write_text(MANIFEST)
    (folder / names.COMMAND).write_text("pytest --vdist-backend=cpu --vdist-certify=out\n")
    if page:
        write_html(whole, folder / names.PAGE)
    write_sums(folder)
    return folder
