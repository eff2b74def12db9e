"""Ways for a rank to fail, and places to fail in, for the fault matrix and its benchmark."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Fault:
    """What a rank does, and what the report must say of it."""

    name: str
    happen: Callable[[], object]
    kind: str  # "died", "raised" or "hung"
    text: str


def _hold_the_gil() -> None:
    ctypes.PyDLL(None).sleep(1000)  # PyDLL keeps the GIL during the call


def _raise() -> None:
    raise ValueError("on purpose")


def _kill(number: signal.Signals) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


FAULTS = (
    Fault("exit", lambda: os._exit(3), "died", "its process exited with code 3"),
    Fault("SIGKILL", _kill(signal.SIGKILL), "died", "killed by SIGKILL"),
    Fault("SIGSEGV", _kill(signal.SIGSEGV), "died", "killed by SIGSEGV"),
    Fault("abort", os.abort, "died", "killed by SIGABRT"),
    Fault("exception", _raise, "raised", "ValueError: on purpose"),
    Fault("hang", lambda: threading.Event().wait(), "hung", "most recent call first"),
    Fault("hang with GIL", _hold_the_gil, "hung", "most recent call first"),
    Fault("SIGSTOP", _kill(signal.SIGSTOP), "hung", "the process is stopped (SIGSTOP)"),
)


def _tensors(count: int) -> list[torch.Tensor]:
    return [torch.zeros(4) for _ in range(count)]


def _all_reduce() -> None:
    dist.all_reduce(torch.ones(4))


def _broadcast() -> None:
    dist.broadcast(torch.ones(4), src=1)


def _all_gather() -> None:
    dist.all_gather(_tensors(dist.get_world_size()), torch.ones(4))


def _reduce_scatter() -> None:
    dist.reduce_scatter(torch.zeros(4), _tensors(dist.get_world_size()))


def _gather() -> None:
    dist.gather(torch.ones(4), _tensors(dist.get_world_size()) if dist.get_rank() == 0 else None, dst=0)


def _all_to_all() -> None:
    size = dist.get_world_size()
    dist.all_to_all_single(torch.zeros(4 * size), torch.ones(4 * size))


def _receive() -> None:
    dist.recv(torch.zeros(4), src=1)


# Each of these keeps rank 0 waiting for rank 1.
COLLECTIVES = {
    "all_reduce": _all_reduce,
    "broadcast": _broadcast,
    "all_gather": _all_gather,
    "reduce_scatter": _reduce_scatter,
    "gather": _gather,
    "all_to_all_single": _all_to_all,
    "barrier": dist.barrier,
    "recv": _receive,
}


def fail_inside(fault: Fault, collective: Callable[[], object]) -> None:
    """On rank 1, fail; on the others, be in the collective meanwhile."""
    dist.barrier()
    if dist.get_rank() == 1:
        fault.happen()
    collective()


def fail_before_init(fault: Fault) -> None:
    """On rank 1, fail; on the others, wait for it in init_process_group."""
    if os.environ["RANK"] == "1":
        fault.happen()
    dist.init_process_group("gloo")
