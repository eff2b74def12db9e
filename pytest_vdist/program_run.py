"""Programs on ranks: run, judged, made small where they fail, and searched for one that fails."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import hypothesis

from pytest_vdist.backends.sharing import ranks_on_one_device
from pytest_vdist.programs.compiled import execute_compiled
from pytest_vdist.programs.explanation import describe, headline
from pytest_vdist.programs.interpreter import execute
from pytest_vdist.programs.judgement import divergence_of
from pytest_vdist.programs.model import Program
from pytest_vdist.programs.reduction import reduced
from pytest_vdist.programs.scope import Scope
from pytest_vdist.programs.script import Setting, script_of
from pytest_vdist.ranks.compilation import compiled, forget_compiled_functions
from pytest_vdist.ranks.failures import DistributedRunError
from pytest_vdist.ranks.world import coordinator, own_coordinator
from pytest_vdist.strategies import programs

if TYPE_CHECKING:
    from pytest_vdist.fixtures import CoordinatorRun

_DEADLINE = 10.0
_SHORT_DEADLINE = 2.0
_LONGEST_REDUCTION = 25.0
_COMPILING = 120.0  # seconds that a compiler may take for one program, on a busy machine
_BLAMED = re.compile(r"raised by call (\d+) of the program")
_CURRENT_TEST = "PYTEST_CURRENT_TEST"


class ProgramFailedError(AssertionError):
    """Raised for a program that does not do on the ranks what the oracle says.

    `program` is the program as small as it was made; the text explains it and tells how to run it again.
    """

    __module__ = "pytest_vdist"

    def __init__(self, program: Program, problem: str, setting: Setting) -> None:
        super().__init__(problem)
        self.program = program
        self.problem = problem
        self._setting = setting

    def __str__(self) -> str:
        size = self.program.world_size
        sections = {
            "": self.problem,
            f"the program, on {size} rank{'s' if size > 1 else ''}": describe(self.program),
            "run it again": f"--vdist-replay='{self.program.to_json()}'{self._sharing(size)}",
            f"without pytest, by torchrun --nproc-per-node={size}": script_of(self.program, self._setting),
        }
        return "\n\n".join(
            f"{title}:\n{_indented(text)}" if title else text for title, text in sections.items()
        )

    def _sharing(self, size: int) -> str:
        if self._setting.devices is None or not self._setting.are_shared_by(size):
            return ""
        return f" --vdist-ranks-per-device={ranks_on_one_device(size, self._setting.devices)}"


@dataclass(frozen=True)
class _Failure:
    program: Program
    problem: str


class ProgramSearch(Protocol):
    """Type of the fixture `program_search`."""

    def __call__(self, *, world_size: int, compile_mode: str | None = None) -> None:
        """Run random programs of `world_size` ranks, as many as --vdist-effort says, until one fails.

        With a `compile_mode` they are of collectives alone, fewer, and each is one function compiled so.
        They are the same ones for the same --vdist-seed; with --vdist-replay, that program is run instead.
        Raises ProgramFailedError for the smallest failing one that is found.
        """


class ProgramRun:
    """Type of the fixture `program_run`."""

    def __init__(
        self,
        run: CoordinatorRun,
        setting: Setting,
        timeout: float,
        reject: Callable[[], Any],
    ) -> None:
        """Run nothing yet. `reject` is called for what a search tries after a failure on the ranks."""
        self._run, self._setting, self._reject = run, setting, reject
        self._timeout = min(timeout, _DEADLINE)
        self._test = ""
        self._failures: dict[str, _Failure] = {}
        self._settled = False

    def __call__(self, program: Program, *, compile_mode: str | None = None) -> None:
        """Run a program on warm ranks, in one dispatch, and compare what every rank gets with the oracle.

        With a `compile_mode` the program, of collectives alone, is one function compiled so. Raises
        ProgramFailedError. Where ranks raised, died or were stuck, which costs new ranks each time, the
        program is made smaller at once, for at most 25 s; what Hypothesis tries after that within the test is
        rejected. Raises InvalidProgramError for a program that has no one right result.
        """
        __tracebackhide__ = True
        self._begin_test(compile_mode)
        text = program.to_json() if self._failures else ""
        failure = self._failures.get(text)
        if failure is None and self._settled:
            self._reject()
        if failure is None:
            failure = self._attempt(program)
        if failure is not None:
            self._failures[program.to_json()] = failure
            raise ProgramFailedError(failure.program, failure.problem, self._setting) from None

    def _begin_test(self, compile_mode: str | None) -> None:
        test = f"{os.environ.get(_CURRENT_TEST, '')} {compile_mode}"
        if test != self._test:
            self._setting = replace(self._setting, compile_mode=compile_mode)
            self._test = test
            self._failures.clear()
            self._settled = False

    def _attempt(self, program: Program) -> _Failure | None:
        try:
            problem = self._problem(program, self._timeout)
        except DistributedRunError as error:
            self._settled = True
            return self._reduced(program, str(error))
        return _Failure(program, problem) if problem else None

    def _problem(self, program: Program, timeout: float) -> str:
        """Return what is wrong with what the ranks got. Raises DistributedRunError where they got nothing."""
        mode, size = self._setting.compile_mode, program.world_size
        if mode is None:
            reports = self._run(
                execute, coordinator, own_coordinator, program, world_size=size, timeout=timeout
            )
        else:
            reports = self._run(
                execute_compiled,
                coordinator,
                _compiled_afresh,
                program,
                mode,
                world_size=size,
                timeout=timeout + _COMPILING,
            )
        found = divergence_of(program, reports, self._setting.accumulate)
        return "" if found is None else headline(program, found)

    def _reduced(self, program: Program, problem: str) -> _Failure:
        smallest = _Failure(program, problem)
        until = time.monotonic() + _LONGEST_REDUCTION

        def fails(candidate: Program) -> bool:
            nonlocal smallest
            if time.monotonic() > until:
                return False
            self._run(_be_ready, world_size=program.world_size)
            try:
                found = self._problem(candidate, _SHORT_DEADLINE)
            except DistributedRunError as error:
                found = str(error)
            if found:
                smallest = _Failure(candidate, found)
            return bool(found)

        blamed = _BLAMED.search(problem)
        reduced(program, fails, None if blamed is None else int(blamed[1]))
        return smallest


def _compiled_afresh(function: Callable[..., Any], mode: str) -> Callable[..., Any]:
    """Compile a function as if it were the first: torch limits recompilations of one code."""
    forget_compiled_functions()
    return compiled(function, mode, fullgraph=False)  # gather, of some ranks alone, breaks the graph


def _be_ready(world: Any) -> None:
    """Do nothing, in a rank: its start counts for nobody's deadline, and nothing of it is under test."""


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" if line else line for line in text.rstrip().splitlines())


def search(run: Callable[[Program], None], scope: Scope, count: int, seed: int) -> None:
    """Run `count` random programs, and have Hypothesis make the first that fails small."""
    __tracebackhide__ = True

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        verbosity=hypothesis.Verbosity.quiet,
        report_multiple_bugs=False,
        derandomize=False,
    )
    @hypothesis.given(programs(scope))
    def random_programs(program: Program) -> None:
        __tracebackhide__ = True
        run(program)

    random_programs()
