"""The session of a certification: hooks that prepare it, record it, and end in a verdict."""

from __future__ import annotations

import shlex
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from pytest_vdist import modes
from pytest_vdist.certificate import assembly, output
from pytest_vdist.certificate.outcomes import INTERNAL_ERROR
from pytest_vdist.certificate.output import SESSION, OutputError, ResultsFile
from pytest_vdist.certificate.report import folder as names
from pytest_vdist.certificate.report.shards import shard_entry
from pytest_vdist.certificate.verdict import exit_code
from pytest_vdist.certificate.waivers import Waiver
from pytest_vdist.certification import frozen, preparation
from pytest_vdist.certification.places import Places
from pytest_vdist.certification.recorder import Recorder, expected_of, note_failure, note_margin
from pytest_vdist.mutation import control_run
from pytest_vdist.options import Options
from pytest_vdist.selection import of_profiles, of_shard


class Certification:
    """A plugin that certifies: results as they come, then report, page, sums and exit code."""

    def __init__(
        self, config: pytest.Config, options: Options, waivers: tuple[Waiver, ...], waivers_text: str
    ) -> None:
        assert options.certify is not None
        self.folder = Path(options.certify)
        self._config, self._options = config, options
        self._waivers, self._waivers_text = waivers, waivers_text
        self._choice = preparation.Choice((), {}, {})
        self._all: list[pytest.Item] = []
        self._collected: list[pytest.Item] = []
        self._shard: dict[str, Any] | None = None
        self._not_selected: dict[str, Any] = {}
        self._places = Places.of(config, self.folder)
        self._session: dict[str, Any] | None = None
        self._results: list[dict[str, Any]] = []
        self._file: ResultsFile | None = None
        self._recorder: Recorder | None = None
        self._problem, self._told = "", False
        self._named_junit_file: str | None = None
        self._report: dict[str, Any] | None = None
        self._margins: dict[str, list[float]] = {}

    def ask_for_junit_file(self) -> None:
        """Have pytest write its JUnit file into the folder; a file that the user named is refused later."""
        self._named_junit_file = self._config.option.xmlpath
        self._config.option.xmlpath = str(self.folder / names.JUNIT)

    # First: all that is refused is refused before anything starts, and before the header.
    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self) -> None:
        frozen.refuse_changes(self._config, self._options, self._named_junit_file)
        frozen.point_at_suites(self._config)
        try:
            output.check(self.folder)
        except OutputError as error:
            raise pytest.UsageError(str(error)) from None
        modes.refuse_what_is_missing(self._options)
        self._choice = preparation.choose(self._options)

    def pytest_report_header(self) -> list[str]:
        left = "; ".join(f"{name}: {why}" for name, why in self._choice.not_judged.items())
        return [
            f"vdist: certify {', '.join(self._choice.profiles)} into {self.folder}",
            *([f"vdist: not judged: {left}"] if left else []),
        ]

    # First, so that it sees all that is collected.
    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        frozen.refuse_missing_tests(items)
        self._all = list(items)
        items[:] = of_profiles(items, self._choice.profiles)
        shard = self._options.shard
        if shard is not None:
            self._shard = shard_entry(shard.number, shard.count, [expected_of(item).test for item in items])
            items[:] = of_shard(items, shard)
        self._collected = list(items)
        self._not_selected = self._waived_elsewhere(items)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        if not session.testsfailed:
            frozen.refuse_lost_items(self._collected, session.items)

    # Before the control mutants, which need the loop's items only.
    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        if session.testsfailed:
            return
        try:
            self._begin(session)
        except OutputError as error:
            self._stop(error)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, None, None]:
        from pytest_vdist.judge.margins import noted_margins  # noqa: PLC0415 - imports torch

        with noted_margins() as margins:
            self._margins[item.nodeid] = margins
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if report.failed:
            note_failure(report, call)
        if report.when == "call":
            note_margin(report, self._margins.pop(item.nodeid, []))
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if self._recorder is not None and not self._problem:
            try:
                self._recorder.take(report)
            except OutputError as error:
                self._stop(error)

    # Innermost: after JUnit's file is written, before the terminal's summary.
    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, None, None]:
        try:
            yield
        except OSError as error:  # JUnit's file: the disk may be full
            self._problem = self._problem or output.cannot_write(self.folder / names.JUNIT, error)
        if self._file is not None:
            self._file.close()
        if self._problem:
            session.exitstatus = INTERNAL_ERROR
        elif self._session is not None:
            try:
                session.exitstatus = self._finish(int(session.exitstatus))
            except OutputError as error:
                self._problem = str(error)
                session.exitstatus = INTERNAL_ERROR
        if self._problem and not self._told:
            # pytest prints no summary of a session that ends with this exit code.
            reporter = self._config.pluginmanager.getplugin("terminalreporter")
            if reporter is not None:
                reporter.ensure_newline()
                reporter.write_line(f"ERROR {self._problem}")

    def pytest_unconfigure(self) -> None:
        """Leave nothing behind where no test was to be run: the folder must be empty next time."""
        junit_file = self.folder / names.JUNIT
        if self._session is None and not self._problem and junit_file.is_file():
            junit_file.unlink()
            if not any(self.folder.iterdir()):
                self.folder.rmdir()

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for line in self._summary():
            terminalreporter.write_line(line)

    def _waived_elsewhere(self, selected: Sequence[pytest.Item]) -> dict[str, Any]:
        """Return the tests that waivers cover and that other shards or profiles have."""
        own = {item.nodeid for item in selected}
        others = [expected_of(item) for item in self._all if item.nodeid not in own]
        return {
            each.test: {"requirements": list(each.requirements), "mode": dict(each.mode)}
            for each in others
            if any(waiver.covers(each.test, each.requirements, each.mode) for waiver in self._waivers)
        }

    def _begin(self, session: pytest.Session) -> None:
        """Write down all that is known before the first test."""
        from pytest_vdist.certification import observation  # noqa: PLC0415 - imports torch

        options, config = self._options, self._config
        output.prepare(self.folder)
        if self._waivers_text:
            output.write_text(self.folder / names.WAIVERS, self._waivers_text)
        expected = {item.nodeid: expected_of(item) for item in session.items}
        output.write_text(
            self.folder / names.MUST_PASS, "".join(f"{each.test}\n" for each in expected.values())
        )
        command = shlex.join(["pytest", *self._places.shown(config.invocation_params.args)])
        output.write_text(self.folder / names.COMMAND, f"{command}\n")
        output.write_text(self.folder / names.MANIFEST, preparation.manifest_as_used(options))
        observed = observation.observe(
            observation.Subject(
                options.backends[0],
                options.implementation,
                options.timeout,
                options.ranks_per_device,
                options.split_group == (True,),
                options.limits,
            )
        )
        manifest = preparation.manifest_of(options)
        contradicted = observation.contradictions(
            observed,
            preparation.capabilities_of(options),
            manifest.order if manifest else "any",
            manifest.repeatable if manifest else False,
        )
        session_at_start = preparation.session_of(
            config, options, self._choice, list(expected.values()), (observed, contradicted)
        )
        self._session = {
            **self._places.shown(session_at_start),
            "shard": self._shard,
            "not_selected": self._not_selected,
        }
        output.write_json(self.folder / SESSION, self._session)
        self._file = ResultsFile(self.folder)
        self._recorder = Recorder(options, expected, self._add)
        # Also with tests of other profiles than those to judge: every certificate needs all controls.
        control_run.run_controls(session, self._all)
        self._note_controls()

    def _note_controls(self) -> None:
        report = control_run.report_of(self._config)
        assert report is not None
        assert self._session is not None
        self._session["controls"] = [
            *({"name": name, "caught": True, "by": test} for name, test in report.noticed.items()),
            *({"name": name, "caught": False, "by": None, "why": why} for name, why in report.missed.items()),
        ]
        self._session["void"] += [
            f"control mutant not noticed: {name}: {why}" for name, why in report.missed.items()
        ]
        output.write_json(self.folder / SESSION, self._session)

    def _add(self, result: dict[str, Any]) -> None:
        assert self._file is not None
        result = self._places.shown(result)
        self._results.append(result)
        self._file.add(result)

    def _finish(self, code: int) -> int:
        """Write the report, and return the exit code."""
        assert self._session is not None
        junit_file = self.folder / names.JUNIT
        if junit_file.is_file():
            output.write_text(junit_file, self._places.text(junit_file.read_text(encoding="utf-8")))
        lacking = assembly.without_result(self._session, self._results)
        file = ResultsFile(self.folder)
        for result in lacking:
            self._results.append(result)
            file.add(result)
        file.close()
        finished = None if lacking else assembly.now()
        self._session["finished"] = finished
        output.write_json(self.folder / SESSION, self._session)
        self._report = assembly.report_of(self._session, self._results, self._waivers, finished=finished)
        assembly.write(self.folder, self._report)
        controls = control_run.report_of(self._config)
        return exit_code(
            self._results,
            self._report["profiles"],
            pytest_code=code,
            waivers_in_error=any(entry["in_error"] for entry in self._report["waivers"]),
            controls_missed=controls is not None and not controls.convincing,
            part=self._shard is not None,
        )

    def _stop(self, error: OutputError) -> None:
        """End the session: what cannot be recorded is not worth running."""
        self._problem, self._told = str(error), True
        pytest.exit(str(error), returncode=INTERNAL_ERROR)

    def _summary(self) -> list[str]:
        if self._report is None:
            return []
        lines = [_judged(self._report["implementation"])]
        for name, entry in self._report["profiles"].items():
            counts = ", ".join(f"{number} {outcome}" for outcome, number in entry["counts"].items())
            lines.append(f"vdist: {name}: {entry['verdict'].replace('_', ' ')} ({counts or 'no tests'})")
            lines += [
                f"vdist:   {key.replace('_', ' ')}: {', '.join(entry[key])}"
                for key in ("failed", "missing", "unsupported", "should_failed")
                if entry[key]
            ]
            for key in ("incomplete_because", "contradicted", "void_because"):
                lines += [f"vdist:   {text}" for text in entry[key]]
        return [*lines, f"vdist: report in {self.folder / names.PAGE}"]


def _judged(implementation: Mapping[str, Any]) -> str:
    """Say which classes moved the data: another communicator than the one that was meant shows here."""
    proof = implementation["proof"]
    parts = {"communicator": proof["communicator"], "process groups": proof["process_group"]}
    told = ", ".join(f"{name} {value}" for name, value in parts.items() if value)
    shared = f", {proof['ranks_per_device']} on a device," if "ranks_per_device" in proof else ""
    where = f"{proof['ranks']} ranks{shared} of {', '.join(implementation['device_names'])}"
    return f"vdist: judged {proof['coordinator']}{told and f' ({told})'} on {where}"
