"""The pytest plugin: hooks only. Nothing imports this module but pytest."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from pytest_vdist import (
    header,
    hooks,
    modes,
    nodes,
    options,
    property_tests,
    repeats,
    run_log,
    selection,
    suite_items,
    terminal,
)
from pytest_vdist.certification import waiving, wiring
from pytest_vdist.fixtures import (
    _rank_pools,
    capabilities,
    coordinator_run,
    distributed_run,
    implementation,
    most_ranks,
    movement_dtypes,
    outcomes_run,
    outcomes_side_by_side,
    program_run,
    program_scope,
    program_search,
    reduction_dtypes,
    torchrun_run,
)
from pytest_vdist.interface.fixtures import interface_inspection
from pytest_vdist.modes import backend, compile_mode, split_group, world_size
from pytest_vdist.mutation import control_run
from pytest_vdist.nodes import topology
from pytest_vdist.performance import message_sizes
from pytest_vdist.process_groups.fixtures import process_group_limits, process_group_run

__all__ = [
    "_rank_pools",
    "backend",
    "capabilities",
    "compile_mode",
    "coordinator_run",
    "distributed_run",
    "implementation",
    "interface_inspection",
    "message_sizes",
    "most_ranks",
    "movement_dtypes",
    "outcomes_run",
    "outcomes_side_by_side",
    "process_group_limits",
    "process_group_run",
    "program_run",
    "program_scope",
    "program_search",
    "reduction_dtypes",
    "split_group",
    "topology",
    "torchrun_run",
    "world_size",
]


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    pluginmanager.add_hookspecs(hooks)


def pytest_addoption(parser: pytest.Parser) -> None:
    options.register(parser)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> int | None:
    return nodes.serve_if_rank(config)


# First, so that a certification can ask pytest for a JUnit file.
@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "vdist_requirement(*ids): the requirements of the registry that the test checks"
    )
    config.addinivalue_line(
        "markers",
        "vdist_world_size(min=1, max=None, multiple_of=1, largest_only=False): "
        "the world sizes that the test can use",
    )
    config.addinivalue_line(
        "markers",
        "vdist_operations(*names): what the test calls of a coordinator: it is skipped where the "
        "implementation declares not to have it",
    )
    config.addinivalue_line("markers", "vdist_nodes(min=1, max=None): over how many nodes the test can run")
    options.configure(config, nodes.process_count(config))
    run_log.start(config)
    config.pluginmanager.register(repeats.Record(config))
    wiring.configure(config, options.options_of(config))


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    nodes.join(session)
    # The workers of xdist run under options that the controller has checked.
    if not suite_items.is_xdist_worker(session.config):
        chosen = options.options_of(session.config)
        modes.refuse_what_is_missing(chosen)
        suite_items.refuse_suites_that_cannot_judge(chosen, suite_items.paths_asked_for(session.config))
        control_run.refuse_several_processes(session.config)


def pytest_report_header(config: pytest.Config) -> list[str]:
    return [*header.header_lines(options.options_of(config)), *nodes.header_lines(config)]


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    return suite_items.make_module(module_path, parent)


# First, so that the modes stand at the front of a test's id, also before what a conftest adds.
@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    of_suites = suite_items.is_suite_path(metafunc.definition.path)
    if of_suites:
        suite_items.require_requirements(metafunc)
    suite_items.require_operations(metafunc)
    modes.parametrize(metafunc, always_by_backend=of_suites)


# Last, so that it sees only what -k, -m and --deselect have left.
@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not suite_items.is_xdist_worker(config):
        paths = (item.path for item in items)
        suite_items.refuse_suites_that_cannot_judge(options.options_of(config), paths)
    selection.keep_selected(config, items)
    nodes.skip_for_want_of_nodes(config, items)
    suite_items.skip_unsupported(options.options_of(config), items)
    property_tests.lift_deadlines(items)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    wanted = options.options_of(session.config).control and not session.config.option.collectonly
    if wanted and control_run.report_of(session.config) is None:
        control_run.run_controls(session)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    return repeats.run_repeatedly(item, nextitem) or None


# First, because the report copies the test's properties.
@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item) -> None:
    terminal.resume_line(item)
    run_log.attribute_runs(item)


@pytest.hookimpl(wrapper=True)
def pytest_report_teststatus(
    report: pytest.TestReport | pytest.CollectReport, config: pytest.Config
) -> Generator[None, run_log.Status, run_log.Status]:
    status = yield
    return run_log.with_runs(repeats.status_of(report) or waiving.status_of(report) or status, report, config)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for line in [
        *control_run.summary_lines(config),
        *repeats.summary_lines(config),
        *nodes.summary_lines(config, terminalreporter.stats.get("skipped", ())),
    ]:
        terminalreporter.write_line(line)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    nodes.finish(session.config)
    code = repeats.exit_code(session.config, exitstatus)
    session.exitstatus = wiring.exit_code(session.config, control_run.exit_code(session.config, code))
    run_log.finish(session.config)


def pytest_unconfigure(config: pytest.Config) -> None:
    nodes.leave(config)
