"""Keeps what a function changes in its process from reaching the next function on the same rank."""

from __future__ import annotations

import builtins
import operator
import os
import random
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
import torch.utils.deterministic
from torch.distributed import distributed_c10d

from pytest_vdist.ranks import _compat
from pytest_vdist.ranks.compilation import forget_compiled_functions
from pytest_vdist.ranks.context import current_rank
from pytest_vdist.ranks.device_memory import DeviceMemory

_SIGNALS = (
    signal.SIGABRT,
    signal.SIGALRM,
    signal.SIGCHLD,
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGPIPE,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
_OFTEN_PATCHED = (
    builtins,
    os,
    random,
    socket,
    time,
    torch,
    torch.nn.functional,
    torch.Tensor,
    dist,
    distributed_c10d,
    dist.ProcessGroup,
    dist.Work,
)


class ProcessState:
    """The state of this process as the runner made it: restored after each run, while nobody waits for it."""

    def __init__(self, after_signal_change: Callable[[], None]) -> None:
        self._after_signal_change = after_signal_change
        self._environment = _compat.environment_snapshot()
        self._directory = os.getcwd()
        self._path = list(sys.path)
        self._streams = sys.stdin, sys.stdout, sys.stderr
        self._handlers = {number: signal.getsignal(number) for number in _SIGNALS}
        self._threads = frozenset(threading.enumerate())
        self._settings = _settings()
        self._callables = [_Callables(owner) for owner in _OFTEN_PATCHED]
        self._modules = set(sys.modules)
        self._memory = DeviceMemory(current_rank().device)

    def begin_run(self, environment: Mapping[str, str | None], seed: int) -> None:
        """Set the environment of a run, and start every generator of random numbers from the seed."""
        self._environment = _compat.environment_snapshot()
        for name, value in environment.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        random.seed(seed)
        # torch.manual_seed asks every device type and takes 0.4 ms.
        torch.default_generator.manual_seed(seed)
        device = current_rank().device
        if device.type != "cpu":
            torch.get_device_module(device).manual_seed(seed)

    def flush(self) -> None:
        """Write out what the function has printed, also if it put other streams in place."""
        for stream in self._streams[1:]:
            stream.flush()

    def threads_left(self) -> list[str]:
        """Return the names of the threads that a run has left behind; such a rank can't be trusted again."""
        if threading.active_count() <= len(self._threads):
            return []
        return [thread.name for thread in threading.enumerate() if not self._is_own(thread)]

    def restore(self) -> None:
        """Put everything back that has changed."""
        os.chdir(self._directory)
        sys.stdin, sys.stdout, sys.stderr = self._streams
        if sys.path != self._path:
            sys.path[:] = self._path
        _restore_settings(self._settings)
        forget_compiled_functions()
        self._restore_handlers()
        for callables in self._callables:
            callables.restore()
        self._watch_new_modules()
        _restore_environment(self._environment)
        self._memory.give_back()

    def _is_own(self, thread: threading.Thread) -> bool:
        return thread in self._threads or thread.name.startswith("vdist-")

    def _restore_handlers(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        changed = {n: h for n, h in self._handlers.items() if signal.getsignal(n) is not h}
        for number, handler in changed.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if changed:
            self._after_signal_change()

    def _watch_new_modules(self) -> None:
        """Watch what the function has imported, from now on: later functions may patch it."""
        if len(sys.modules) == len(self._modules):
            return
        for name in set(sys.modules) - self._modules:
            module = sys.modules[name]
            if _is_users_module(name) and "__doc__" in getattr(module, "__dict__", ()):
                self._callables.append(_Callables(module))
        self._modules = set(sys.modules)


def _set_default_device(device: torch.device) -> None:
    torch.set_default_device(None if device.type == "cpu" else device)


def _set_grad_enabled(enabled: bool) -> None:
    torch.set_grad_enabled(enabled)


def _set_anomaly_detection(enabled: bool) -> None:
    torch.autograd.set_detect_anomaly(enabled)


def _fills_new_memory() -> bool:
    return bool(torch.utils.deterministic.fill_uninitialized_memory)  # type: ignore[attr-defined]


def _set_fill_of_new_memory(enabled: bool) -> None:
    torch.utils.deterministic.fill_uninitialized_memory = enabled  # type: ignore[attr-defined]


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _set_umask(mask: int) -> None:
    os.umask(mask)


def _set_signal_mask(mask: set[int]) -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


# Setters are called for what has changed only: some of them import the compiler, which takes seconds.
_SETTINGS: tuple[tuple[Callable[[], Any], Callable[[Any], None]], ...] = (
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_default_device, _set_default_device),
    (torch.get_num_threads, torch.set_num_threads),
    (torch.is_grad_enabled, _set_grad_enabled),
    (torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    (torch.is_anomaly_enabled, _set_anomaly_detection),
    (_fills_new_memory, _set_fill_of_new_memory),
    *(
        (partial(torch.is_autocast_enabled, kind), partial(torch.set_autocast_enabled, kind))
        for kind in ("cpu", "cuda", "xpu")
    ),
    (socket.getdefaulttimeout, socket.setdefaulttimeout),
    (_umask, _set_umask),
    (partial(signal.pthread_sigmask, signal.SIG_BLOCK, ()), _set_signal_mask),
)


def _settings() -> tuple[Any, ...]:
    return tuple(read() for read, _ in _SETTINGS)


def _restore_settings(settings: tuple[Any, ...]) -> None:
    for (read, write), value in zip(_SETTINGS, settings, strict=True):
        if read() != value:
            write(value)


class _Callables:
    """The functions and classes of a module or class; its other attributes may change as they like."""

    def __init__(self, owner: Any) -> None:
        self._owner = owner
        self._values = {name: value for name, value in vars(owner).items() if callable(value)}
        self._read = operator.itemgetter("__doc__", *self._values)  # one call for thousands of look-ups
        self._before = self._read(vars(owner))

    def restore(self) -> None:
        if not self._unchanged():
            now = vars(self._owner)
            for name, value in self._values.items():
                if now.get(name) is not value:
                    setattr(self._owner, name, value)

    def _unchanged(self) -> bool:
        try:
            return bool(self._read(vars(self._owner)) == self._before)
        except KeyError:  # something was deleted
            return False


def _is_users_module(name: str) -> bool:
    package = name.partition(".")[0]
    return package not in sys.stdlib_module_names and package not in {"torch", "numpy", "pytest_vdist"}


def _restore_environment(wanted: Mapping[bytes, bytes]) -> None:
    now = _compat.environment_snapshot()
    if now == wanted:
        return
    for name in now.keys() - wanted.keys():
        del os.environb[name]
    for name, value in wanted.items():
        if now.get(name) != value:
            os.environb[name] = value
