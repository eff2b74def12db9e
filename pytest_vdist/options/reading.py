"""From the command line, the environment and the ini file to the values of a session."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

import pytest

from pytest_vdist.backends.base import BackendError, DeviceBackend
from pytest_vdist.backends.registry import BUILT_IN, HOOK, backends_of_hook, find_backend
from pytest_vdist.implementations.spec import ImplementationError, ImplementationSpec
from pytest_vdist.options.row import COMMAND_LINE, DEFAULT, VARIABLE_PREFIX, Row, in_environment, origin
from pytest_vdist.options.table import KNOWN_VARIABLES, REFERENCE_VARIABLES, TABLE
from pytest_vdist.options.values import OPTIONS, Options


def register(parser: pytest.Parser) -> None:
    """Add every row of the table to pytest's command line and ini file."""
    group = parser.getgroup("vdist", "conformance of device communicators (pytest-vdist)")
    for row in TABLE:
        help_text = f"{row.help} (default: {row.default}; environment: {row.variable}; ini: {row.ini})"
        group.addoption(
            row.flag, dest=row.ini, default=None, metavar=row.metavar, type=_checked_text(row), help=help_text
        )
        parser.addini(row.ini, help=row.help, type="string", default=None)


def text_of(name: str, config: pytest.Config, environment: Mapping[str, str]) -> str:
    """Return the text that holds for one row, before the options are read."""
    row = next(row for row in TABLE if row.name == name)
    return _text_and_source(row, config, environment)[0]


def configure(config: pytest.Config, processes: int | None) -> None:
    """Read the options into the session's config; `processes` are those of torchrun, if it has started it.

    Raises pytest.UsageError for a value that cannot hold.
    """
    config.stash[OPTIONS] = replace(read_options(config, os.environ), processes=processes)


def read_options(config: pytest.Config, environment: Mapping[str, str]) -> Options:
    """Return the values that hold: command line before environment before ini file before default."""
    refuse_unknown_variables(environment)
    _refuse_bad_switches(environment)
    texts = {row.name: _text_and_source(row, config, environment) for row in TABLE}
    values = {row.name: row.read(*texts[row.name]) for row in TABLE}
    sources = {name: source for name, (_, source) in texts.items()}
    try:
        backends = _backends(values.pop("backend"), sources["backend"], config)
        implementation = ImplementationSpec.resolve(
            values.pop("implementation"), origin(sources["implementation"])
        )
        if values["manifest"] is not None:
            implementation = _declared(
                implementation, values["manifest"], origin(sources["manifest"]), backends
            )
    except (BackendError, ImplementationError) as error:
        raise pytest.UsageError(str(error)) from error
    return Options(
        backends=backends, implementation=implementation, sources=MappingProxyType(sources), **values
    )


def refuse_unknown_variables(environment: Mapping[str, str]) -> None:
    """Raise pytest.UsageError for a variable with this plugin's prefix that nothing reads, likely a typo."""
    for variable in sorted(environment):
        if variable.startswith(VARIABLE_PREFIX) and variable not in KNOWN_VARIABLES:
            near = difflib.get_close_matches(variable, KNOWN_VARIABLES, n=1)
            suggestion = f"did you mean {near[0]}? " if near else ""
            raise pytest.UsageError(
                f"unknown variable, got {variable!r} from the environment; {suggestion}"
                f"unset it, the known ones are {', '.join(KNOWN_VARIABLES)}"
            )


def _refuse_bad_switches(environment: Mapping[str, str]) -> None:
    """Raise pytest.UsageError for a value that the reference would refuse in every rank."""
    for variable in REFERENCE_VARIABLES:
        text = environment.get(variable, "0")
        if text not in {"0", "1"}:
            raise pytest.UsageError(
                f"{variable} must be 0 or 1, got {text!r} from the environment; set one of them, or unset it"
            )


def _declared(
    implementation: ImplementationSpec, file: str, origin: str, backends: tuple[DeviceBackend, ...]
) -> ImplementationSpec:
    """Return the implementation with the claims of a manifest."""
    # Few sessions have one.
    from pytest_vdist.certificate.tables import FileError  # noqa: PLC0415
    from pytest_vdist.certification.declared import DeclaredSpec  # noqa: PLC0415

    try:
        return DeclaredSpec.of(implementation, file, origin, tuple(chosen.name for chosen in backends))
    except FileError as error:
        raise pytest.UsageError(str(error)) from error


def _backends(names: tuple[str, ...], source: str, config: pytest.Config) -> tuple[DeviceBackend, ...]:
    # A vendor's package must not be able to break a session that uses no option of this plugin.
    if source == DEFAULT:
        return tuple(BUILT_IN[name] for name in names)
    of_hook = backends_of_hook(getattr(config.hook, HOOK)(config=config))
    return tuple(find_backend(name, origin=origin(source), of_hook=of_hook) for name in names)


def _checked_text(row: Row) -> Callable[[str], str]:
    """Return an argparse type that checks and keeps the text: xdist sends its workers plain values only."""

    def check(text: str) -> str:
        row.read(text, COMMAND_LINE)
        return text

    return check


def _text_and_source(row: Row, config: pytest.Config, environment: Mapping[str, str]) -> tuple[str, str]:
    given = config.getoption(row.ini)
    if given is not None:
        return given, COMMAND_LINE
    if row.variable in environment:
        return environment[row.variable], in_environment(row.variable)
    configured = config.getini(row.ini)
    if configured is not None:
        return configured, _ini_source(row, config)
    return row.default, DEFAULT


def _ini_source(row: Row, config: pytest.Config) -> str:
    overrides = config.getoption("override_ini") or ()
    if config.inipath is None or any(text.startswith(f"{row.ini}=") for text in overrides):
        return f"{COMMAND_LINE} (-o {row.ini})"
    return f"ini file {config.inipath.name}"
