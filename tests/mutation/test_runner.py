"""Mutants in parallel: what workers answer, and what becomes of a worker that does not."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from pytest_vdist.mutation import runner
from pytest_vdist.mutation.results import Fate, Result
from pytest_vdist.reference_impl.mutants import MUTANTS

NAMES = ["barrier_does_nothing", "sum_is_zero", "keys_arrive_sorted"]
# Stands in for the worker: it answers by the name of the mutant, and notes what it was asked.
WORKER = """
import json, os, sys
for line in sys.stdin:
    job = json.loads(line)
    with open("asked", "a") as asked:
        asked.write(json.dumps(job) + "\\n")
    if "tests" in job:
        print(json.dumps({answer}), flush=True)
    elif job["mutant"] == "sum_is_zero":
        os._exit(1)
    else:
        test = "suites/collectives/" + job["mutant"]
        kill = {{"test": test, "requirements": ["VD-BAR-001", "VD-TD-001"], "how": "failed", "message": "m"}}
        expected = ["VD-BAR-001"] if job["mutant"].startswith("barrier") else ["VD-TD-001"]
        print(json.dumps({{"result": {{"mutant": job["mutant"], "backend": job["backend"], "defect": "d",
            "expected": expected, "fate": "killed", "seconds": 1.0, "tests": 1, "kill": kill}}}}), flush=True)
"""


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Start a script in place of the worker; it works in the temporary folder."""
    script = tmp_path / "worker.py"

    def start() -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen([sys.executable, script], stdin=pipe, stdout=pipe, text=True, cwd=tmp_path)

    monkeypatch.setattr(runner, "_start", start)
    return script


def run(worker: Path, names: list[str], *, answer: str, jobs: int = 2) -> tuple[list[Result], list[str]]:
    worker.write_text(textwrap.dedent(WORKER.format(answer=answer)))
    reported: list[str] = []
    results = runner.run_mutants(
        [MUTANTS[name] for name in names],
        ["cpu"],
        jobs=jobs,
        timeout=5.0,
        report=lambda result: reported.append(result.mutant),
    )
    return results, reported


@pytest.mark.parametrize("jobs", [1, 2, 5])
def test_results_come_in_the_order_of_the_mutants_and_a_lost_worker_costs_its_mutant_only(
    worker: Path, jobs: int
) -> None:
    results, reported = run(worker, NAMES, answer='{"failing": []}', jobs=jobs)
    assert [(result.mutant, result.fate) for result in results] == [
        ("barrier_does_nothing", Fate.KILLED),
        ("sum_is_zero", Fate.HARNESS),
        ("keys_arrive_sorted", Fate.KILLED),
    ]
    assert sorted(reported) == sorted(NAMES)
    lost = results[1].kill
    assert lost is not None
    assert lost.message == "the worker ended, or gave no answer within 1200 s"


def test_tests_that_killed_run_on_the_reference_and_void_their_kills_where_they_fail(worker: Path) -> None:
    failing = '{"failing": ["suites/collectives/barrier_does_nothing"]}'
    results, _ = run(worker, ["barrier_does_nothing", "keys_arrive_sorted"], answer=failing)
    assert [result.fate for result in results] == [Fate.VOID, Fate.KILLED]
    asked = (worker.parent / "asked").read_text().splitlines()
    tests = '"tests": ["suites/collectives/barrier_does_nothing", "suites/collectives/keys_arrive_sorted"]'
    assert tests in asked[-1]


def test_kills_are_worth_nothing_where_the_reference_cannot_be_asked(worker: Path) -> None:
    with pytest.raises(runner.MutationError, match="could not be run on the reference: it is broken"):
        run(worker, ["barrier_does_nothing"], answer='{"error": "it is broken"}')


def test_a_mutant_runs_on_devices_that_show_it_only(worker: Path) -> None:
    results, reported = run(
        worker, ["groups_are_never_split", "barrier_does_nothing"], answer='{"failing": []}'
    )
    assert [result.mutant for result in results] == reported == ["barrier_does_nothing"]
