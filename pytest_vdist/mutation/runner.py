"""Mutants in parallel: worker processes that stay warm, one job after the other for each."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_vdist.mutation.results import Fate, Kill, Result, without_void
from pytest_vdist.reference_impl.mutants import MUTANTS, Mutant

# A survivor takes as long as the suites do, on a machine that may be slow.
_DEADLINE_OF_JOB = 1200.0
_TESTS_PER_CONTROL = 40


@dataclass(frozen=True)
class Job:
    """One mutant on one backend. With `tests`, these on the reference, in the modes of the mutant."""

    mutant: Mutant
    backend: str
    timeout: float
    tests: tuple[str, ...] = ()

    def to_json(self) -> str:
        data: dict[str, Any] = {"mutant": self.mutant.name, "backend": self.backend, "timeout": self.timeout}
        return json.dumps(data | ({"tests": self.tests} if self.tests else {}))


class MutationError(Exception):
    """Raised when a worker could not do a job that judges the others."""


def run_mutants(
    mutants: Sequence[Mutant],
    backends: Sequence[str],
    *,
    jobs: int,
    timeout: float,
    report: Callable[[Result], None] = lambda _: None,
) -> list[Result]:
    """Run every mutant on every backend that it fits, `jobs` at a time, and return what became of them.

    `report` is told each result as it comes, from several threads, one at a time. At last the tests that
    killed run on the reference as it is: a kill by one that fails there too is void. Raises MutationError
    where that cannot be found out.
    """
    todo = [Job(m, backend, timeout) for backend in backends for m in mutants if m.fits(backend)]
    results: list[Result] = []

    def keep(job: Job, answer: dict[str, Any]) -> None:
        result = Result.from_json(answer["result"]) if "result" in answer else _crashed(job, answer["error"])
        results.append(result)
        report(result)

    _work_off(todo, jobs, keep)
    order = {(job.mutant.name, job.backend): place for place, job in enumerate(todo)}
    results.sort(key=lambda result: order[result.mutant, result.backend])
    return without_void(results, _failing_on_the_reference(results, jobs=jobs, timeout=timeout))


def _failing_on_the_reference(results: Iterable[Result], *, jobs: int, timeout: float) -> dict[str, set[str]]:
    tests: dict[tuple[Any, ...], dict[str, Mutant]] = {}
    for result in results:
        if result.kill is not None and result.fate in {Fate.KILLED, Fate.UNRELATED}:
            mutant = MUTANTS[result.mutant]
            key = (result.backend, mutant.split_group, mutant.compile_mode, mutant.environment)
            tests.setdefault(key, {})[result.kill.test] = mutant
    todo = []
    for (backend, *_), killers in tests.items():
        names = sorted(killers)
        todo += [
            Job(killers[names[0]], backend, timeout, tuple(names[at : at + _TESTS_PER_CONTROL]))
            for at in range(0, len(names), _TESTS_PER_CONTROL)
        ]
    failing: dict[str, set[str]] = {}

    def keep(job: Job, answer: dict[str, Any]) -> None:
        if "failing" not in answer:
            raise MutationError(f"the tests that killed could not be run on the reference: {answer['error']}")
        failing.setdefault(job.backend, set()).update(answer["failing"])

    _work_off(todo, jobs, keep)
    return failing


def _crashed(job: Job, error: str) -> Result:
    kill = Kill("", (), "error", error.strip().splitlines()[0])
    mutant = job.mutant
    return Result(mutant.name, job.backend, mutant.defect, mutant.kills, Fate.HARNESS, 0.0, 0, kill)


def _work_off(todo: Sequence[Job], jobs: int, keep: Callable[[Job, dict[str, Any]], None]) -> None:
    """Do the jobs with `jobs` workers; each gets the next one when it has done one."""
    waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
    for job in todo:
        waiting.put(job)
    lock = threading.Lock()
    errors: list[Exception] = []
    workers = [_Worker() for _ in range(min(jobs, len(todo)))]

    def serve(worker: _Worker) -> None:
        try:
            while not errors:
                job = waiting.get_nowait()
                answer = worker.ask(job)
                with lock:
                    keep(job, answer)
        except queue.Empty:
            return
        except Exception as error:  # raised again below, in the thread that waits
            errors.append(error)

    threads = [threading.Thread(target=serve, args=(worker,)) for worker in workers]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        for worker in workers:
            worker.close()
    if errors:
        raise errors[0]


class _Worker:
    """A worker process, started when it is needed, and again after it was lost."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def ask(self, job: Job) -> dict[str, Any]:
        """Return the worker's answer; one with `error` where it died or did not answer in time."""
        if self._process is None:
            self._process = _start()
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        overdue = threading.Timer(_DEADLINE_OF_JOB, _end, (process,))
        overdue.start()
        try:
            process.stdin.write(job.to_json() + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except OSError:
            line = ""
        finally:
            overdue.cancel()
        if line:
            return dict(json.loads(line))
        self.close()
        return {"error": f"the worker ended, or gave no answer within {_DEADLINE_OF_JOB:g} s"}

    def close(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            _end(process)
            process.communicate()


def _start() -> subprocess.Popen[str]:
    dropped = {"PYTEST_ADDOPTS", "PYTEST_PLUGINS"}
    kept = {"VDIST_SIMDEV_CACHE"}
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in dropped and (name in kept or not name.startswith("VDIST_"))
    }
    return subprocess.Popen(
        [sys.executable, "-m", "pytest_vdist.mutation.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
        start_new_session=True,
    )


def _end(process: subprocess.Popen[str]) -> None:
    """End a worker by its signal for that; it takes its ranks along."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
