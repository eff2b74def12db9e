"""What a certification refuses on its command line: all that changes which tests are run, or how often."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pytest_vdist.certificate.suites import SUITES
from pytest_vdist.certification.suite_source import tests_of
from pytest_vdist.options import Options
from pytest_vdist.suite_items import is_suite_path, paths_asked_for

# Destination in pytest's options, and the flag as users write it; a plugin may be missing with its option.
_REFUSED = (
    ("keyword", "-k"),
    ("markexpr", "-m"),
    ("deselect", "--deselect"),
    ("maxfail", "-x or --maxfail"),
    ("lf", "--lf"),
    ("failedfirst", "--ff"),
    ("newfirst", "--nf"),
    ("stepwise", "--sw"),
    ("ignore", "--ignore"),
    ("ignore_glob", "--ignore-glob"),
    ("collectonly", "--collect-only"),
    ("setuponly", "--setup-only"),
    ("setupplan", "--setup-plan"),
    ("numprocesses", "-n"),
    ("runxfail", "--runxfail"),
)
_WHY = "a certification runs the whole suites, in one process, in their own order; leave it out"


def refuse_changes(config: pytest.Config, options: Options, junit_file: str | None) -> None:
    """Raise pytest.UsageError for the first option that is not allowed with --vdist-certify.

    `junit_file` is the one that the user named.
    """
    if junit_file is not None:
        raise pytest.UsageError(
            f"--junitxml is refused with --vdist-certify, got {junit_file!r}; leave it out: junit.xml is "
            f"written beside the report"
        )
    for destination, flag in _REFUSED:
        value = getattr(config.option, destination, None)
        if value:
            raise pytest.UsageError(f"{flag} is refused with --vdist-certify, got {_shown(value)}; {_WHY}")
    blocked = [name for name in config.option.plugins or () if name.startswith("no:")]
    if blocked:
        raise pytest.UsageError(f"-p is refused with --vdist-certify, got {blocked[0]!r}; {_WHY}")
    if options.replay is not None:
        raise pytest.UsageError(
            f"--vdist-replay is refused with --vdist-certify, got a program from "
            f"{options.origin('replay')}; {_WHY}"
        )
    if len(options.backends) != 1:
        raise pytest.UsageError(
            f"a certificate is about one device, got {', '.join(each.name for each in options.backends)} "
            f"from {options.origin('backend')}; certify each by itself"
        )
    if not options.is_given("backend"):
        raise pytest.UsageError("a certificate is about a device, got none; pass --vdist-backend=cpu")


def point_at_suites(config: pytest.Config) -> None:
    """Have the session collect the suites. Raises pytest.UsageError where it was asked for anything else."""
    given = config.args_source is pytest.Config.ArgsSource.ARGS
    for argument, path in zip(config.args, paths_asked_for(config), strict=True) if given else ():
        if not (path.is_dir() and is_suite_path(path) and path.resolve() == SUITES):
            raise pytest.UsageError(
                f"paths are refused with --vdist-certify, got {argument!r}; a certification runs the whole "
                f"suites: leave it out"
            )
    config.args = [str(SUITES)]


def refuse_missing_tests(items: Sequence[pytest.Item]) -> None:
    """Raise pytest.UsageError if a test of the suites' source is not among the items.

    An ini file, a conftest or another plugin can leave tests out without any option.
    """
    collected = {item.nodeid.removeprefix("suites/").split("[", 1)[0] for item in items}
    missing = [
        name
        for module in sorted(SUITES.glob("*/test_*.py"))
        for test, _ in tests_of(module)
        if (name := f"{module.parent.name}/{module.name}::{test}") not in collected
    ]
    if missing:
        raise pytest.UsageError(
            f"{len(missing)} tests of the suites were not collected, such as {missing[0]}; an ini file, a "
            f"conftest.py or a plugin leaves them out: run from another folder or without it"
        )


def refuse_lost_items(before: Sequence[pytest.Item], after: Sequence[pytest.Item]) -> None:
    """Raise pytest.UsageError if somebody has taken out items after they were collected, or put in others."""
    kept = {item.nodeid for item in after}
    lost = [item.nodeid for item in before if item.nodeid not in kept]
    foreign = [item.nodeid for item in after if not is_suite_path(item.path)]
    if lost:
        raise pytest.UsageError(
            f"{len(lost)} tests of the suites were deselected, such as {lost[0]}; a conftest.py or a plugin "
            f"did it: run from another folder or without it"
        )
    if foreign:
        raise pytest.UsageError(f"a certification runs the suites alone, got {foreign[0]}")


def _shown(value: object) -> str:
    return repr(value[0] if isinstance(value, list) else value)
