"""The suites' tests as pytest items: ids that do not depend on the installation, and what each must carry."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from pytest_vdist.certificate.suites import SUITES
from pytest_vdist.implementations.spec import ImplementationError
from pytest_vdist.options import Options, options_of

SUITES_PACKAGE = "pytest_vdist.suites"
REQUIREMENT_MARKER = "vdist_requirement"
OPERATIONS_MARKER = "vdist_operations"
_OTHERS_WARNINGS = [
    rf"default::{category}:(?!pytest_vdist\.|suites\.|test_|_pytest\.)"
    for category in ("DeprecationWarning", "FutureWarning", "RuntimeWarning", "UserWarning")
]


def is_suite_path(path: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(SUITES)


def make_module(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Return the collector of a module of the suites, None for any other module.

    Its id is `suites/<chapter>/<file>`, wherever the package lies and whatever the current directory is.
    Where the session turns warnings into errors, those of the implementation under test and of what it uses
    are shown instead: no requirement forbids them.
    """
    if not is_suite_path(module_path):
        return None
    if is_xdist_worker(parent.config):
        # A usage error would be a crash there; the controller prints one collection error for all workers.
        problem = problem_of_suites(options_of(parent.config), module_path)
        if problem is not None:
            raise pytest.Collector.CollectError(problem)
    relative = Path(os.path.realpath(module_path)).relative_to(SUITES)
    module: pytest.Module = pytest.Module.from_parent(
        parent, path=module_path, nodeid=f"suites/{relative.as_posix()}"
    )
    module.add_marker(pytest.mark.filterwarnings(*_OTHERS_WARNINGS))
    return module


def require_requirements(metafunc: pytest.Metafunc) -> None:
    """Raise a collection error unless the test names at least one requirement, and only known ones."""
    # The registry is read when a suite is collected, not by a plugin that is installed but unused.
    from pytest_vdist.certificate.requirements import RequirementsError, registry  # noqa: PLC0415

    test = metafunc.definition.nodeid
    ids = tuple(id_ for marker in metafunc.definition.iter_markers(REQUIREMENT_MARKER) for id_ in marker.args)
    if not ids:
        raise pytest.Collector.CollectError(
            f"{test} names no requirement; mark it with @pytest.mark.{REQUIREMENT_MARKER}('VD-…')"
        )
    try:
        registry().require(ids)
    except RequirementsError as error:
        raise pytest.Collector.CollectError(f"{test}: {error}") from None


def require_operations(metafunc: pytest.Metafunc) -> None:
    """Raise a collection error for a marker `vdist_operations` with a name that nobody can declare."""
    names = [name for marker in metafunc.definition.iter_markers(OPERATIONS_MARKER) for name in marker.args]
    if not names:
        return
    # The manifest's names are read when a test has the marker, not by a plugin that is installed but unused.
    from pytest_vdist.certificate.manifest import OPERATIONS  # noqa: PLC0415

    wrong = next((name for name in names if name not in OPERATIONS), None)
    if wrong is not None:
        raise pytest.Collector.CollectError(
            f"marker {OPERATIONS_MARKER} on {metafunc.definition.nodeid} names {wrong!r}; the operations are "
            f"{', '.join(OPERATIONS)}"
        )


def skip_unsupported(options: Options, items: Iterable[pytest.Item]) -> None:
    """Skip the tests of operations that the implementation declares not to have.

    Those are what a test names by `vdist_operations`, and in the suites the operation of
    `test_<operation>.py`. That they are refused is tested elsewhere.
    """
    declared: dict[str, Mapping[str, str]] = {}
    for item in items:
        backend = getattr(getattr(item, "callspec", None), "params", {}).get("backend")
        named = [name for marker in item.iter_markers(OPERATIONS_MARKER) for name in marker.args]
        if is_suite_path(item.path):
            named.append(item.path.stem.removeprefix("test_"))
        if backend is None or not named:
            continue
        if backend not in declared:
            device = options.backend_named(backend)
            declared[backend] = _unsupported(options, device.device_type)
        for operation in named:
            if operation in declared[backend]:
                reason = f"unsupported: {operation}: {declared[backend][operation]}"
                item.add_marker(pytest.mark.skip(reason=reason))
                break


def _unsupported(options: Options, device_type: str) -> Mapping[str, str]:
    try:
        return options.implementation.capabilities(device_type).unsupported
    except ImplementationError as error:
        raise pytest.UsageError(str(error)) from error


def refuse_suites_that_cannot_judge(options: Options, paths: Iterable[Path]) -> None:
    """Raise pytest.UsageError for a path of the suites where no device was named or asserts are left out."""
    for path in paths:
        problem = problem_of_suites(options, path)
        if problem is not None:
            raise pytest.UsageError(problem)


def problem_of_suites(options: Options, path: Path) -> str | None:
    """Return what to tell the user if the path belongs to the suites and they can't judge in this session."""
    if not is_suite_path(path):
        return None
    if not options.is_given("backend"):
        return f"the suites test a device, got none for {path}; name the device: pytest --vdist-backend=cpu"
    if not __debug__:
        return (
            f"the suites judge by assert statements, which Python leaves out at optimization level "
            f"{sys.flags.optimize}, got {path}; unset PYTHONOPTIMIZE and run Python without -O"
        )
    return None


def is_xdist_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def paths_asked_for(config: pytest.Config) -> list[Path]:
    """Return the paths of the session's arguments, those of the suites' package under --pyargs included."""
    paths = []
    for argument in config.args:
        place = argument.split("::", 1)[0]
        package, _, module = place.partition(SUITES_PACKAGE)
        if config.getoption("pyargs") and package == "" and module[:1] in {"", "."}:
            paths.append(SUITES)
        else:
            paths.append(config.invocation_params.dir / place)
    return paths
