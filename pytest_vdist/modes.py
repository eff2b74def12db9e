"""Modes as test parameters: device, world size, subgroup creation and compilation, visible in test ids."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import cast

import pytest

from pytest_vdist import nodes
from pytest_vdist._compat import fixture_definition
from pytest_vdist.backends.base import BackendError, DeviceBackend
from pytest_vdist.backends.registry import require_devices, require_sharing
from pytest_vdist.implementations.spec import ImplementationError, ImplementationSpec
from pytest_vdist.options import ALL_COMPILE_MODES, Options, options_of

MODES = ("backend", "world_size", "split_group", "compile_mode")
WORLD_SIZE_MARKER = "vdist_world_size"


@pytest.fixture(scope="session")
def backend(request: pytest.FixtureRequest) -> str:
    """Return the name of the device backend that the test runs on, as given by --vdist-backend."""
    return cast("str", _chosen(request))


@pytest.fixture(scope="session")
def world_size(request: pytest.FixtureRequest) -> int:
    """Return the number of ranks to test with: each of --vdist-world-sizes that the test's marker allows."""
    return cast("int", _chosen(request))


@pytest.fixture(scope="session")
def split_group(request: pytest.FixtureRequest) -> bool:
    """Return whether subgroups are created by split_group instead of new_group (--vdist-split-group)."""
    return cast("bool", _chosen(request))


@pytest.fixture(scope="session")
def compile_mode(request: pytest.FixtureRequest) -> str:
    """Return how to run the function under test, as `compiled` takes it (--vdist-compile)."""
    return cast("str", _chosen(request))


def _chosen(request: pytest.FixtureRequest) -> object:
    if not hasattr(request, "param"):
        raise LookupError(
            f"the mode {request.fixturename!r} is chosen at collection, where no test names it: "
            f"name it among the arguments of the test or of a fixture that the test names"
        )
    return request.param


@dataclass(frozen=True, kw_only=True)
class WorldSizes:
    """The world sizes that a test can use, as its marker says."""

    min: int = 1
    max: int | None = None
    multiple_of: int = 1
    largest_only: bool = False

    @property
    def smallest(self) -> int:
        return -(-self.min // self.multiple_of) * self.multiple_of

    def allows(self, size: int) -> bool:
        return self.min <= size and (self.max is None or size <= self.max) and size % self.multiple_of == 0

    def choose(self, selected: tuple[int, ...]) -> list[int]:
        """Return those of the selected sizes to test with."""
        sizes = [size for size in selected if self.allows(size)]
        return [max(sizes)] if self.largest_only and sizes else sizes

    def __str__(self) -> str:
        bound = f">= {self.min}" if self.max is None else f"from {self.min} to {self.max}"
        return f"world size {bound}" + (
            f" and a multiple of {self.multiple_of}" if self.multiple_of > 1 else ""
        )


def parametrize(metafunc: pytest.Metafunc, *, always_by_backend: bool) -> None:
    """Give a test one item for each combination of the modes that it names.

    A test that names any mode gets the backend as well, so that each device has items of its own;
    `always_by_backend` asks for this where the test names none. Fixtures and parameters of the same names
    that the project defines are left alone.
    """
    options = options_of(metafunc.config)
    own = {name for name in MODES if _is_own(metafunc, name)}
    if not own and not always_by_backend:
        return
    if "world_size" in own:
        _parametrize_world_size(metafunc, options)
    elif "backend" in own or "backend" not in _all_names(metafunc):
        _add(
            metafunc, ("backend",), [pytest.param(chosen.name, id=chosen.name) for chosen in options.backends]
        )
    if "split_group" in own:
        ids = {False: "new_group", True: "split_group"}
        _add(metafunc, ("split_group",), [pytest.param(on, id=ids[on]) for on in options.split_group])
    if "compile_mode" in own:
        _add(metafunc, ("compile_mode",), [pytest.param(mode, id=mode) for mode in _compile_modes(options)])


def _parametrize_world_size(metafunc: pytest.Metafunc, options: Options) -> None:
    if "backend" in _all_names(metafunc) and not _is_own(metafunc, "backend"):
        raise pytest.Collector.CollectError(
            f"{metafunc.definition.nodeid} takes world_size from pytest-vdist, which needs its fixture "
            f"backend as well, but the project has a backend of its own; rename that"
        )
    wanted = _wanted_world_sizes(metafunc)
    wanted_nodes = nodes.wanted_nodes(metafunc.definition, metafunc.fixturenames)
    topology = nodes.topology_of(metafunc.config)
    cases: list[object] = []
    for chosen in options.backends:
        selected = options.world_sizes_on(chosen)
        placed = tuple(size for size in selected if wanted_nodes.allows(topology.nodes_of(size)))
        sizes = wanted.choose(placed)
        cases += [pytest.param(chosen.name, size, id=f"{chosen.name}-{size}") for size in sizes]
        if not sizes and wanted.choose(selected):
            cases.append(_not_run(chosen, wanted, nodes.want_of_nodes(wanted_nodes, metafunc.config)))
        elif not sizes:
            reason = f"not run: needs {wanted}, selected {', '.join(map(str, selected)) or 'none'}"
            cases.append(_not_run(chosen, wanted, reason))
    _add(metafunc, ("backend", "world_size"), cases)


def _not_run(chosen: DeviceBackend, wanted: WorldSizes, reason: str) -> object:
    """Return the item of a test that cannot run, under the id of the smallest size that could."""
    return pytest.param(
        chosen.name,
        wanted.smallest,
        id=f"{chosen.name}-{wanted.smallest}",
        marks=pytest.mark.skip(reason=reason),
    )


def _wanted_world_sizes(metafunc: pytest.Metafunc) -> WorldSizes:
    marker = metafunc.definition.get_closest_marker(WORLD_SIZE_MARKER)
    if marker is None:
        return WorldSizes()
    try:
        wanted = WorldSizes(*marker.args, **marker.kwargs)
    except TypeError as error:
        problem = f"takes min, max, multiple_of and largest_only by name: {error}"
        raise _bad_marker(metafunc, problem) from None
    for name, value in (("min", wanted.min), ("max", wanted.max), ("multiple_of", wanted.multiple_of)):
        if not (name == "max" and value is None) and (type(value) is not int or value < 1):
            raise _bad_marker(metafunc, f"{name} must be a whole number from 1, got {value!r}")
    if not wanted.allows(wanted.smallest):
        raise _bad_marker(metafunc, f"no number of ranks is a {wanted}")
    return wanted


def _bad_marker(metafunc: pytest.Metafunc, problem: str) -> pytest.Collector.CollectError:
    return pytest.Collector.CollectError(
        f"marker {WORLD_SIZE_MARKER} on {metafunc.definition.nodeid}: {problem}"
    )


def _add(metafunc: pytest.Metafunc, names: tuple[str, ...], cases: list[object]) -> None:
    for name in names:
        if name not in metafunc.fixturenames:
            metafunc.fixturenames.append(name)
    metafunc.parametrize(names, cases, indirect=True, scope="session")


def _is_own(metafunc: pytest.Metafunc, name: str) -> bool:
    if name not in metafunc.fixturenames or name in _direct_names(metafunc):
        return False
    definition = fixture_definition(metafunc, name)
    return definition is not None and definition.func.__module__ == __name__


def _all_names(metafunc: pytest.Metafunc) -> set[str]:
    return {*metafunc.fixturenames, *_direct_names(metafunc)}


def _direct_names(metafunc: pytest.Metafunc) -> set[str]:
    """Return the names that the test's own parametrize marks set."""
    names: set[str] = set()
    for mark in metafunc.definition.iter_markers("parametrize"):
        argnames = mark.kwargs["argnames"] if "argnames" in mark.kwargs else mark.args[0]
        parts = argnames.split(",") if isinstance(argnames, str) else argnames
        names.update(part.strip() for part in parts)
    return names


def _compile_modes(options: Options) -> tuple[str, ...]:
    """Return the modes that were asked for; for "all" those that the implementation declares."""
    if options.compile_modes != ALL_COMPILE_MODES:
        return options.compile_modes
    return _declared_compile_modes(options.implementation, options.backends[0].device_type)


@functools.cache
def _declared_compile_modes(implementation: ImplementationSpec, device_type: str) -> tuple[str, ...]:
    return implementation.capabilities(device_type).compile_modes


def refuse_what_is_missing(options: Options) -> None:
    """Raise pytest.UsageError for a device, a world size or a mode that was asked for and is not there."""
    try:
        for chosen in options.backends if options.is_given("backend") else ():
            _require_devices(chosen, options)
        if (
            options.is_given("implementation")
            or options.split_group != (False,)
            or options.compile_modes != ("eager",)
        ):
            for chosen in options.backends:
                _require_capabilities(chosen, options)
            _require_one_meaning_of_all(options)
    except (BackendError, ImplementationError) as error:
        raise pytest.UsageError(str(error)) from error


def _require_devices(chosen: DeviceBackend, options: Options) -> None:
    found = require_devices(chosen, origin=options.origin("backend"))
    if options.processes is not None and not chosen.shares_device:
        _require_devices_of_their_own(options)
    require_sharing(chosen, options.ranks_per_device, origin=options.origin("ranks_per_device"))
    placed = options.world_sizes_on(chosen)
    too_large = [size for size in options.world_sizes if size not in placed]
    if options.processes is None and options.is_given("world_sizes") and too_large:
        enough = ",".join(map(str, placed)) or found.device_count * options.ranks_per_device
        option = options.way_to_share(max(too_large), chosen)
        sharing = f", for {options.ranks_per_device} ranks each" if options.ranks_per_device > 1 else ""
        raise pytest.UsageError(
            f"world size must be at most the number of {chosen.name} devices, here "
            f"{found.device_count}{sharing}, got {too_large[0]} from {options.origin('world_sizes')}; "
            f"pass --vdist-world-sizes={enough}{option and f', or let ranks share devices: {option}'}"
        )


def _require_devices_of_their_own(options: Options) -> None:
    """Raise pytest.UsageError where the processes of torchrun are to share devices."""
    for what in ("ranks", "runs"):
        name = f"{what}_per_device"
        if getattr(options, name) > 1:
            raise pytest.UsageError(
                f"{what} per device must be 1 where torchrun has started pytest, got "
                f"{getattr(options, name)} from {options.origin(name)}: each of its processes has its own "
                f"device; leave --vdist-{what}-per-device out, or pass --vdist-launcher=local"
            )


def _require_capabilities(chosen: DeviceBackend, options: Options) -> None:
    name = options.implementation.name
    capabilities = options.implementation.capabilities(chosen.device_type)
    if True in options.split_group and not capabilities.supports("split_group"):
        raise pytest.UsageError(
            f"implementation {name!r} does not have the capability 'split_group' on {chosen.name}, asked for "
            f"by {options.origin('split_group')}: {capabilities.unsupported['split_group']}; "
            f"pass --vdist-split-group=off, or a --vdist-backend that has it"
        )
    declared = ",".join(capabilities.compile_modes)
    for mode in () if options.compile_modes == ALL_COMPILE_MODES else options.compile_modes:
        if mode not in capabilities.compile_modes:
            raise pytest.UsageError(
                f"implementation {name!r} has the capability 'compile_modes' on {chosen.name} for {declared} "
                f"only, got {mode!r} from {options.origin('compile_modes')}; pass --vdist-compile={declared}"
            )


def _require_one_meaning_of_all(options: Options) -> None:
    """Raise pytest.UsageError where all compile modes are others on one device than on the next."""
    if options.compile_modes != ALL_COMPILE_MODES:
        return
    declared = {
        chosen.name: ",".join(_declared_compile_modes(options.implementation, chosen.device_type))
        for chosen in options.backends
    }
    if len(set(declared.values())) > 1:
        told = "; ".join(f"{modes} on {name}" for name, modes in declared.items())
        raise pytest.UsageError(
            f"compile modes must be named where devices have different ones, got 'all' from "
            f"{options.origin('compile_modes')}: implementation {options.implementation.name!r} declares "
            f"{told}; pass --vdist-compile={next(iter(declared.values()))}, or one --vdist-backend"
        )
