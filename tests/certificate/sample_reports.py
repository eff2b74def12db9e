"""Reports and folders as a session of certification leaves them, made from the registry."""

from __future__ import annotations

import hashlib
import itertools
import json
from importlib import metadata
from pathlib import Path
from typing import Any

from pytest_vdist.certificate import assembly, output
from pytest_vdist.certificate.controls import CONTROLS
from pytest_vdist.certificate.report import folder as names
from pytest_vdist.certificate.report.folder import Report, results_text
from pytest_vdist.certificate.requirements import REGISTRY_FILE, registry
from pytest_vdist.certificate.suites import suites_digest

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
MANIFEST = 'schema = "vdist-manifest/1"\n[device]\nname = "cpu"\n[claims]\ndevice_failures = "error"\n'


def result(
    test: str,
    outcome: str = "passed",
    *,
    requirement: str = "VD-AR-001",
    world_size: int = 2,
    margin: float | None = None,
    split_group: str | None = "off",
    compile_mode: str | None = "eager",
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


def measured(tests: list[dict[str, Any]], points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the results, the first of which has measured these."""
    first, *rest = tests
    return [{**first, "properties": {**first["properties"], assembly.BANDWIDTH: points}}, *rest]


def conformant_results(*, world_size: int = 2) -> list[dict[str, Any]]:
    """Return a passed result for every requirement of the registry."""
    return [
        result(
            f"{each.chapter}/test_{each.area.lower()}.py::test_{number}[cpu-{world_size}]",
            requirement=each.id,
            split_group=None,
            compile_mode=None,
            world_size=world_size,
        )
        for number, each in enumerate(registry().requirements.values())
    ]


def session(tests: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    """Return what a session writes down at its start; `changes` replace entries."""
    whole: dict[str, Any] = {
        "suite": {
            "version": metadata.version("pytest-vdist"),
            "spec_version": registry().spec_version,
            "requirements_digest": hashlib.sha256(REGISTRY_FILE.read_bytes()).hexdigest(),
            "digest": suites_digest(),
            "kill_score": {"score": 1.0, "killed": 214, "mutants": 214},
        },
        "started": "2026-11-22T12:00:00Z",
        "finished": "2026-11-22T12:14:31Z",
        "implementation": {
            "name": "reference",
            "backend": "cpu",
            "device_names": ["Example CPU 9"],
            "proof": {"communicator": "CpuCommunicator", "process_group": "ProcessGroupGloo"},
        },
        "environment": {"torch": "2.13.0+cpu", "python": "3.11.15", "libraries": {"hypothesis": "6.170.15"}},
        "settings": [
            {"name": "--vdist-backend", "value": "cpu", "source": "command line"},
            {"name": "--vdist-timeout", "value": "60", "source": "default"},
        ],
        "seeds": {"programs": 0},
        "capabilities": {
            "declared": {
                "accumulate": {"bfloat16": "float32"},
                "device_failures": "error",
                "order": "any",
                "repeatable": False,
            },
            "observed": {"accumulate": {"bfloat16": "bfloat16"}, "split_group": True},
        },
        "controls": [
            {"name": f"{name} (cpu)", "caught": True, "by": "collectives/test_all_reduce.py::test_sum[cpu-2]"}
            for name in CONTROLS
        ],
        "profiles": ["core", "numerics"],
        "profiles_not_judged": dict.fromkeys(registry().profiles, "not asked for"),
        "left_out": {},
        "void": [],
        "shard": None,
        "expected": {
            each["test"]: {"requirements": each["requirements"], "mode": each["mode"]} for each in tests
        },
    }
    whole |= changes
    judged = whole["profiles"]
    not_judged = {name: why for name, why in whole["profiles_not_judged"].items() if name not in judged}
    return {**whole, "profiles_not_judged": not_judged}


def report(tests: list[dict[str, Any]], **changes: Any) -> Report:
    """Return the report of a session that has these results; `changes` are of its session."""
    tests = measured(tests, changes.pop("bandwidth", bandwidth()))
    whole = session(tests, **changes)
    return assembly.report_of(whole, tests, (), finished=whole["finished"])


def write_folder(folder: Path, tests: list[dict[str, Any]], *, waivers: str = "", **changes: Any) -> Path:
    """Write the folder of a certification that has these results."""
    folder.mkdir(parents=True)
    tests = measured(tests, changes.pop("bandwidth", bandwidth()))
    if waivers:
        (folder / names.WAIVERS).write_text(waivers)
    whole = session(tests, **changes)
    (folder / output.SESSION).write_text(json.dumps(whole, sort_keys=True))
    (folder / names.RESULTS).write_text(results_text(tests))
    (folder / names.MUST_PASS).write_text("".join(f"{test}\n" for test in whole["expected"]))
    cases = "".join('<testcase classname="t" name="n"/>' for _ in tests)
    (folder / names.JUNIT).write_text(
        f'<testsuites><testsuite name="pytest">{cases}</testsuite></testsuites>\n'
    )
    (folder / names.MANIFEST).write_text(MANIFEST)
    (folder / names.COMMAND).write_text("pytest --vdist-backend=cpu --vdist-certify=out\n")
    held = assembly.waivers_in(folder)
    assembly.write(folder, assembly.report_of(whole, tests, held, finished=whole["finished"]))
    return folder
