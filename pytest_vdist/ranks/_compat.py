"""Every use of an API of torch, multiprocess or pytest that is not public, with its range and reason."""

from __future__ import annotations

import importlib
import os
import sys
import types
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from cloudpickle import cloudpickle as cloudpickle_module
from multiprocess import forkserver, util
from torch.distributed import distributed_c10d
from torch.utils import _pytree

# torch 2.11 to 2.15 export the stores from torch.distributed at run time, but not to type checkers.
TCPStore: Any = dist.TCPStore  # type: ignore[attr-defined]
PrefixStore: Any = dist.PrefixStore  # type: ignore[attr-defined]


def live_process_groups() -> list[dist.ProcessGroup]:
    """Return every process group of this process that is not destroyed.

    torch 2.11 to 2.15 keep them in `_world.pg_map` and offer no public list. Leftover groups must be seen,
    because a reference to a destroyed group keeps its sockets and threads.
    """
    return list(distributed_c10d._world.pg_map)


def begin_names_again() -> None:
    """Let torch name groups from the beginning, where no default group stands.

    torch 2.11 to 2.15 count groups in `_world.group_count`, which an `init_process_group` that failed has
    raised, maybe on some ranks only: they would wait for each other under different names in the next world.
    """
    if not dist.is_initialized():
        distributed_c10d._world.group_count = 0


def sequence_number(group: dist.ProcessGroup) -> int:
    """Return how many collectives the group has begun, or 0 where its backend does not count.

    torch 2.11 to 2.15: `_get_sequence_number_for_group`; compiled code's collectives count too.
    """
    try:
        return int(group._get_sequence_number_for_group())  # type: ignore[attr-defined]
    except RuntimeError:  # the backend does not implement it
        return 0


def concrete_backend(group: dist.ProcessGroup, device: torch.device) -> str:
    """Return class and name of the object that moves tensors of `device` in `group`: `ProcessGroupGloo gloo`.

    torch 2.11 to 2.15: `ProcessGroup._get_backend`. `dist.get_backend` tells what was asked for, and
    "undefined" where nothing was. Raises RuntimeError where the group has no backend for the device.
    """
    backend: Any = group._get_backend(device)
    return f"{type(backend).__name__} {backend.name()}"


def backend_timeout(group: dist.ProcessGroup, device: torch.device) -> float | None:
    """Return the timeout in the options of the group's backend for `device`, in seconds.

    torch 2.11 to 2.15: `Backend.options._timeout`; TORCH_DISTRIBUTED_DEBUG=DETAIL wraps backends. None where
    a vendor's backend has no such options.
    """
    backend: Any = group._get_backend(device)
    options = getattr(getattr(backend, "wrapped_pg", backend), "options", None)
    timeout = getattr(options, "_timeout", None)
    return None if timeout is None else float(timeout.total_seconds())


def group_label(group: dist.ProcessGroup) -> str:
    """Return the group's description, or its name: `group_desc` is set by torch, its readers are private."""
    description = str(group.group_desc)
    return group.group_name if description in {"", "undefined"} else description


def compiler_backend(name: str) -> Callable[..., Any]:
    """Return a backend of torch.compile by its name, so that another backend can call it.

    torch 2.11 to 2.15: `torch._dynamo.lookup_backend`, which raises for a name that nobody registered. The
    compiler takes seconds to import, and warns of parts of torch that it uses itself.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from torch._dynamo import lookup_backend  # noqa: PLC0415

        if name == "inductor":
            importlib.import_module("torch._inductor.compile_fx")
    backend: Callable[..., Any] = lookup_backend(name)
    return backend


@contextmanager
def aliasing_operators_warn() -> Iterator[None]:
    """Make torch warn of an operator that returns an alias of its input, also where CI is set.

    torch 2.11 to 2.15 check this at the first call of compiled code, and raise instead if the environment
    has CI: a defect would have one face at a desk and another one there.
    """
    import torch._functorch.config as settings  # noqa: PLC0415 - imported with the compiler only

    with settings.patch(error_on_custom_op_aliasing=False):
        yield


def map_tensors(function: Callable[[torch.Tensor], torch.Tensor], value: Any) -> Any:
    """Apply `function` to every tensor in nested containers (`torch.utils._pytree`, torch 2.11 to 2.15)."""
    return _pytree.tree_map_only(torch.Tensor, function, value)


def session_folder() -> str:
    """Return the temporary folder of this process; it goes when that ends, or, killed, its fork server.

    multiprocess 0.70 (as multiprocessing of Python 3.11 to 3.14): `util.get_temp_dir`, where the fork
    server's socket lies.
    """
    return str(util.get_temp_dir())


def fork_server_address() -> str:
    """Return the path of the socket of this process's fork server, or "".

    multiprocess 0.70 (as multiprocessing of Python 3.11 to 3.14) knows it in `_forkserver`, on both sides.
    """
    address = forkserver._forkserver._forkserver_address
    return "" if not address or str(address).startswith("\0") else str(address)


@contextmanager
def hidden_main_module() -> Iterator[None]:
    """Keep multiprocess from running the controller's main script again in every rank.

    multiprocess 0.70 (as multiprocessing of Python 3.11 to 3.14) re-imports `__main__` in each child, which
    would run a script without an `if __name__` guard once per rank, and costs its imports.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextmanager
def quick_submodule_search() -> Iterator[None]:
    """Let cloudpickle find the submodules that a function names by looking them up.

    cloudpickle 3.0 to 3.1 goes through all of `sys.modules` for each package that the function mentions: 1 ms
    for a function that mentions torch, more than the rest of a run.
    """
    original = cloudpickle_module._find_imported_submodules
    cloudpickle_module._find_imported_submodules = _imported_submodules
    try:
        yield
    finally:
        cloudpickle_module._find_imported_submodules = original


def _imported_submodules(code: types.CodeType, dependencies: Iterable[object]) -> list[types.ModuleType]:
    """Return the imported submodules of these packages whose path consists of names that `code` uses.

    Only plain modules can be pickled. Others, such as torch.ops, are made when their package is imported.
    """
    packages = [x.__name__ for x in dependencies if isinstance(x, types.ModuleType) and x.__package__]
    found: dict[str, types.ModuleType] = {}
    while packages:
        prefix = packages.pop()
        for name in code.co_names:
            path = f"{prefix}.{name}"
            if type(sys.modules.get(path)) is types.ModuleType and path not in found:
                found[path] = sys.modules[path]
                packages.append(path)
    return list(found.values())


def environment_snapshot() -> dict[bytes, bytes]:
    """Return a copy of the environment, cheap enough for every dispatch.

    CPython 3.11 to 3.14 on POSIX keep it in `os.environ._data`; copying through the public mapping decodes
    every variable and costs 40 times as much.
    """
    data = getattr(os.environ, "_data", None)
    return dict(data) if data is not None else dict(os.environb)


def current_warning_filters() -> list[Any]:
    """Return the filters in force; `warnings.filters` is undocumented but stable since Python 3.4."""
    return list(warnings.filters)


def set_warning_filters(filters: list[Any]) -> None:
    """Replace the filters in force, inside `warnings.catch_warnings`, which restores them."""
    warnings.resetwarnings()
    for action, message, category, module, lineno in filters:
        warnings.filters.append((action, message, category, module, lineno))  # type: ignore[attr-defined]


def is_rewritten_by_pytest(module: types.ModuleType) -> bool:
    """Tell whether pytest rewrote the module's asserts: test modules, conftest files and plugins.

    pytest 8 to 9: such a module's loader is `_pytest.assertion.rewrite.AssertionRewritingHook`.
    """
    loader = getattr(getattr(module, "__spec__", None), "loader", None)
    return type(loader).__module__ == "_pytest.assertion.rewrite"


def tell_comparisons(note: Callable[[str, object, object], None], count: Callable[[], None]) -> None:
    """Have pytest's rewritten asserts tell what they have found wrong, and leave their texts as they are.

    They call `note(operator, left, right)` for each comparison that is wrong, then `count()`, and raise.
    pytest 8 to 9: `_pytest.assertion.util._reprcompare`, which pytest itself sets around each test, and
    what formats every failed assert, `_pytest.assertion.rewrite._format_explanation`. Nothing happens where
    pytest is not loaded.
    """
    util: Any = sys.modules.get("_pytest.assertion.util")
    rewrite: Any = sys.modules.get("_pytest.assertion.rewrite")
    if util is None or rewrite is None:
        return

    def format_explanation(explanation: str) -> str:
        count()
        return str(util.format_explanation(explanation))

    util._reprcompare = note
    rewrite._format_explanation = format_explanation


def is_of_rewriting(frame: types.FrameType) -> bool:
    """Tell whether a frame is of what pytest's rewritten asserts call (pytest 8 to 9)."""
    return str(frame.f_globals.get("__name__")).startswith("_pytest.assertion.")


def outcome_of(exception: BaseException) -> str:
    """Return "skip", "fail", "xfail" or "exit" for pytest's own outcome exceptions, else "".

    pytest 8 to 9: the classes of `_pytest.outcomes`, looked up among the loaded modules, because a rank must
    not import pytest if the function under test did not.
    """
    outcomes = sys.modules.get("_pytest.outcomes")
    if outcomes is None:
        return ""
    kinds = {"XFailed": "xfail", "Skipped": "skip", "Failed": "fail", "Exit": "exit"}
    return next((kind for name, kind in kinds.items() if isinstance(exception, getattr(outcomes, name))), "")
