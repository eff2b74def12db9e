"""Every flag, ini key and environment variable of the plugin in one table, and the values that hold."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, TypeVar

import pytest

from pytest_vdist.backends.base import BackendError, DeviceBackend
from pytest_vdist.backends.registry import BUILT_IN, HOOK, availability, backends_of_hook, find_backend
from pytest_vdist.implementations.spec import ImplementationError, ImplementationSpec

_T = TypeVar("_T")

COMMAND_LINE = "command line"
DEFAULT = "default"
COMPILE_MODES = ("eager", "aot_eager", "inductor", "cudagraph")
ALL_COMPILE_MODES = ("all",)
MAX_WORLD_SIZE = 1024
LONGEST_GROUP_TIMEOUT = 86_400
UNSET = "none"
LAUNCHERS = ("auto", "local", "torchrun")
MAX_REPEATS = 10_000
EFFORTS = {"smoke": 60, "default": 500, "certify": 10_000}  # random programs for each world size
PROGRAMS_FOR_A_COMPILED_ONE = 10  # to compile one takes as long as to run that many, or longer
"""Random programs for each world size."""
LARGEST_SEED = 2**32 - 1
VARIABLE_PREFIX = "VDIST_"
# Variables that the reference implementation reads in the ranks.
REFERENCE_VARIABLES = ("VDIST_SHARED_MEMORY",)
# The folder where the simulated accelerator keeps its built extension.
SIMDEV_VARIABLES = ("VDIST_SIMDEV_CACHE",)


class BadValueError(ValueError):
    """Raised by a parser of the table: what the value must be, and the part of it that is not."""

    def __init__(self, expected: str, offending: str) -> None:
        super().__init__(f"{expected}, got {offending!r}")


def _parse_names(text: str) -> tuple[str, ...]:
    return _distinct("backend names", tuple(part.strip() for part in text.split(",")), text)


def _parse_implementation(text: str) -> str:
    if not text.strip():
        raise BadValueError("implementation must not be empty", text)
    return text.strip()


def _parse_split_group(text: str) -> tuple[bool, ...]:
    values = {"off": (False,), "on": (True,), "both": (False, True)}
    if text not in values:
        raise BadValueError("subgroup creation must be off, on or both", text)
    return values[text]


def _parse_split_group_variable(text: str) -> tuple[bool, ...]:
    if text not in {"0", "1"}:
        raise BadValueError("subgroup creation must be 0 or 1 in the environment", text)
    return (text == "1",)


def _parse_compile_modes(text: str) -> tuple[str, ...]:
    if text.strip() == "all":
        return ALL_COMPILE_MODES
    modes = tuple(part.strip() for part in text.split(","))
    for mode in modes:
        if mode not in COMPILE_MODES:
            raise BadValueError(f"compile mode must be one of {', '.join(COMPILE_MODES)}, or all", mode)
    return _distinct("compile modes", modes, text)


def _parse_world_sizes(text: str) -> tuple[int, ...]:
    sizes = tuple(_parse_world_size(part.strip()) for part in text.split(","))
    return _distinct("world sizes", sizes, text)


def _parse_world_size(text: str) -> int:
    # isdecimal() is True for other scripts' digits as well, which int() reads but no user means.
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= MAX_WORLD_SIZE):
        raise BadValueError(f"world size must be a whole number from 1 to {MAX_WORLD_SIZE}", text)
    return int(text)


def _parse_timeout(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds > 0):
        raise BadValueError("timeout must be a number of seconds greater than 0", text)
    return seconds


def _parse_times(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= MAX_REPEATS):
        raise BadValueError(f"number of runs must be a whole number from 1 to {MAX_REPEATS}", text)
    return int(text)


def _parse_switch(text: str) -> bool:
    values = {"off": False, "on": True}
    if text not in values:
        raise BadValueError("control mutants must be off or on", text)
    return values[text]


def _parse_effort(text: str) -> str:
    if text not in EFFORTS:
        raise BadValueError(f"effort must be one of {', '.join(EFFORTS)}", text)
    return text


def _parse_seed(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) <= LARGEST_SEED):
        raise BadValueError(f"seed must be a whole number from 0 to {LARGEST_SEED}", text)
    return int(text)


def _parse_replay(text: str) -> str:
    """Return the text of the program."""
    if text.lstrip().startswith("{"):
        return text
    if not os.path.isfile(text):
        raise BadValueError("program must be a file that is there, or text that begins with {", text)
    with open(text, encoding="utf-8") as file:
        return file.read()


def _parse_group_timeout(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and 0 < seconds <= LONGEST_GROUP_TIMEOUT):
        raise BadValueError(
            f"limit must be a number of seconds greater than 0 and at most {LONGEST_GROUP_TIMEOUT} (a day)",
            text,
        )
    return seconds


def _parse_launcher(text: str) -> str:
    if text not in LAUNCHERS:
        raise BadValueError(f"launcher must be one of {', '.join(LAUNCHERS)}", text)
    return text


def _parse_path(text: str) -> str:
    if not text.strip():
        raise BadValueError("path must not be empty", text)
    return text


def _parse_profiles(text: str) -> tuple[str, ...]:
    return _distinct("profiles", tuple(part.strip() for part in text.split(",")), text)


def _distinct(what: str, values: tuple[_T, ...], text: str) -> tuple[_T, ...]:
    if "" in values:
        raise BadValueError(f"{what} must not be empty", text)
    if len(set(values)) < len(values):
        raise BadValueError(f"{what} must not repeat", text)
    return values


@dataclass(frozen=True)
class Row:
    """One option: its names on the three ways in, how its text is read, and what holds without it."""

    name: str
    flag: str
    variable: str
    metavar: str
    default: str
    example: str
    help: str
    parse: Callable[[str], Any]
    parse_variable: Callable[[str], Any] | None = None

    @property
    def ini(self) -> str:
        return self.flag.removeprefix("--").replace("-", "_")

    def read(self, text: str, source: str) -> Any:
        """Return the value of a text. Raises pytest.UsageError that says what, where from and what to do."""
        if source == DEFAULT and text == UNSET:
            return None
        parse = (
            self.parse_variable
            if self.parse_variable and source == in_environment(self.variable)
            else self.parse
        )
        try:
            return parse(text)
        except BadValueError as error:
            raise pytest.UsageError(
                f"{error} from {origin(source)}; pass {self.flag}={self.example}"
            ) from None


TABLE = (
    Row(
        name="backend",
        flag="--vdist-backend",
        variable="VDIST_BACKEND",
        metavar="NAME[,NAME]",
        default="cpu",
        example="cpu",
        help="device backends to test, separated by commas: cpu, cuda, xpu or one that a vendor registers",
        parse=_parse_names,
    ),
    Row(
        name="implementation",
        flag="--vdist-impl",
        variable="VDIST_IMPL",
        metavar="IMPL",
        default="reference",
        example="reference",
        help="coordinator under test: reference, pkg.mod:factory or file.py:factory",
        parse=_parse_implementation,
    ),
    Row(
        name="split_group",
        flag="--vdist-split-group",
        variable="VDIST_DISTRIBUTED_USE_SPLIT_GROUP",
        metavar="off|on|both",
        default="off",
        example="both",
        help="create subgroups by new_group (off), split_group (on) or both ways; 0 or 1 in the environment",
        parse=_parse_split_group,
        parse_variable=_parse_split_group_variable,
    ),
    Row(
        name="compile_modes",
        flag="--vdist-compile",
        variable="VDIST_COMPILE",
        metavar="MODE[,MODE]|all",
        default="eager",
        example="eager,inductor",
        help="ways to run the functions under test, separated by commas: eager, aot_eager, inductor, "
        "cudagraph; or all that the implementation declares",
        parse=_parse_compile_modes,
    ),
    Row(
        name="world_sizes",
        flag="--vdist-world-sizes",
        variable="VDIST_WORLD_SIZES",
        metavar="N[,N]",
        default="1,2,3,4",
        example="2,4",
        help="numbers of ranks to test with, separated by commas; the default leaves out what lacks devices",
        parse=_parse_world_sizes,
    ),
    Row(
        name="timeout",
        flag="--vdist-timeout",
        variable="VDIST_TIMEOUT",
        metavar="SECONDS",
        default="60",
        example="60",
        help="deadline in seconds of one run of a function on ranks",
        parse=_parse_timeout,
    ),
    Row(
        name="distributed_timeout_seconds",
        flag="--vdist-distributed-timeout-seconds",
        variable="VDIST_DISTRIBUTED_TIMEOUT_SECONDS",
        metavar="SECONDS",
        default="none",
        example="600",
        help="limit in seconds of operations on device groups; none leaves it to the backend",
        parse=_parse_group_timeout,
    ),
    Row(
        name="cpu_distributed_timeout_seconds",
        flag="--vdist-cpu-distributed-timeout-seconds",
        variable="VDIST_CPU_DISTRIBUTED_TIMEOUT_SECONDS",
        metavar="SECONDS",
        default="none",
        example="60",
        help="limit in seconds of operations on CPU groups, such as objects; none leaves it to the backend",
        parse=_parse_group_timeout,
    ),
    Row(
        name="verify",
        flag="--vdist-verify",
        variable="VDIST_VERIFY",
        metavar="N",
        default="1",
        example="10",
        help="run each test N times, half on the same ranks and half on fresh ones, and name the flaky ones",
        parse=_parse_times,
    ),
    Row(
        name="control",
        flag="--vdist-control",
        variable="VDIST_CONTROL",
        metavar="off|on",
        default="off",
        example="on",
        help="first run tests on three mutants of the implementation, which they must notice (exit code 15)",
        parse=_parse_switch,
    ),
    Row(
        name="effort",
        flag="--vdist-effort",
        variable="VDIST_EFFORT",
        metavar="smoke|default|certify",
        default="smoke",
        example="default",
        help="how many random programs the suites run for each world size: smoke, default or certify",
        parse=_parse_effort,
    ),
    Row(
        name="seed",
        flag="--vdist-seed",
        variable="VDIST_SEED",
        metavar="N",
        default="0",
        example="1",
        help="random programs are the same ones for the same seed",
        parse=_parse_seed,
    ),
    Row(
        name="replay",
        flag="--vdist-replay",
        variable="VDIST_REPLAY",
        metavar="PROGRAM",
        default="none",
        example="{...}",
        help="run this program instead of random ones: a file, or the text that a failure shows",
        parse=_parse_replay,
    ),
    Row(
        name="launcher",
        flag="--vdist-launcher",
        variable="VDIST_LAUNCHER",
        metavar="auto|local|torchrun",
        default="auto",
        example="auto",
        help="who starts ranks: torchrun, if that has started pytest (auto), or always this machine (local)",
        parse=_parse_launcher,
    ),
    Row(
        name="join_timeout",
        flag="--vdist-join-timeout",
        variable="VDIST_JOIN_TIMEOUT",
        metavar="SECONDS",
        default="120",
        example="120",
        help="deadline in seconds for the processes that torchrun has started to find each other",
        parse=_parse_timeout,
    ),
    Row(
        name="certify",
        flag="--vdist-certify",
        variable="VDIST_CERTIFY",
        metavar="FOLDER",
        default="none",
        example="out",
        help="certify the device: all tests, a frozen command line, and a report in an empty folder",
        parse=_parse_path,
    ),
    Row(
        name="profiles",
        flag="--vdist-profile",
        variable="VDIST_PROFILE",
        metavar="NAME[,NAME]",
        default="none",
        example="core,inference",
        help="profiles to certify, separated by commas; none stands for all that the selected modes can show",
        parse=_parse_profiles,
    ),
    Row(
        name="manifest",
        flag="--vdist-manifest",
        variable="VDIST_MANIFEST",
        metavar="FILE",
        default="none",
        example="manifest.toml",
        help="capability manifest: claims that replace those of the implementation on the device",
        parse=_parse_path,
    ),
    Row(
        name="waivers",
        flag="--vdist-waivers",
        variable="VDIST_WAIVERS",
        metavar="FILE",
        default="none",
        example="waivers.toml",
        help="known failures; one that passes, has expired or matches no test is an error (exit code 11)",
        parse=_parse_path,
    ),
)
KNOWN_VARIABLES = (*(row.variable for row in TABLE), *REFERENCE_VARIABLES, *SIMDEV_VARIABLES)


@dataclass(frozen=True)
class GroupLimits:
    """How long operations on process groups may take, in seconds; None leaves it to the backend."""

    timeout: float | None
    cpu_timeout: float | None


@dataclass(frozen=True)
class Options:
    """The values that hold in this session; `sources` says where each row of the table has its value from."""

    backends: tuple[DeviceBackend, ...]
    implementation: ImplementationSpec
    split_group: tuple[bool, ...]
    compile_modes: tuple[str, ...]  # ("all",) until the implementation is asked, see modes.py
    world_sizes: tuple[int, ...]
    timeout: float
    distributed_timeout_seconds: float | None
    cpu_distributed_timeout_seconds: float | None
    verify: int
    control: bool
    effort: str
    seed: int
    replay: str | None
    certify: str | None
    profiles: tuple[str, ...] | None
    manifest: str | None
    waivers: str | None
    launcher: str
    join_timeout: float
    sources: Mapping[str, str]
    processes: int | None = None  # of torchrun, None where that has not started the session

    @property
    def limits(self) -> GroupLimits:
        """The limits of process groups: those of the device, and those of the CPU."""
        return GroupLimits(self.distributed_timeout_seconds, self.cpu_distributed_timeout_seconds)

    @property
    def used(self) -> bool:
        """Whether anybody set any option."""
        return any(source != DEFAULT for source in self.sources.values())

    def is_given(self, name: str) -> bool:
        return self.sources[name] != DEFAULT

    def origin(self, name: str) -> str:
        return origin(self.sources[name])

    def backend_named(self, name: str) -> DeviceBackend:
        """Return the selected backend of that name. Raises LookupError for one that is not selected."""
        for backend in self.backends:
            if backend.name == name:
                return backend
        selected = ", ".join(backend.name for backend in self.backends)
        raise LookupError(f"backend {name!r} is not selected, {self.origin('backend')} selects {selected}")

    def world_sizes_on(self, backend: DeviceBackend) -> tuple[int, ...]:
        """Return the sizes to test on a backend: those that have a device for each rank, or share one."""
        if self.processes is not None:
            return tuple(size for size in self.world_sizes if size <= self.processes)
        if backend.shares_device:
            return self.world_sizes
        devices = availability(backend).device_count
        return tuple(size for size in self.world_sizes if size <= devices)


_OPTIONS = pytest.StashKey[Options]()


def options_of(config: pytest.Config) -> Options:
    """Return the options of the session, which are there from pytest_configure on."""
    return config.stash[_OPTIONS]


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
    config.stash[_OPTIONS] = replace(read_options(config, os.environ), processes=processes)


def read_options(config: pytest.Config, environment: Mapping[str, str]) -> Options:
    """Return the values that hold: command line before environment before ini file before default."""
    refuse_unknown_variables(environment)
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


def in_environment(variable: str) -> str:
    return f"{variable} in the environment"


def origin(source: str) -> str:
    """Return a source as it stands in a sentence: "from the command line"."""
    return source if source.startswith(VARIABLE_PREFIX) else f"the {source}"


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
