"""What a function changes in its process does not reach the next one."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.utils.deterministic

from pytest_vdist import DistributedRun, current_rank


def _environment() -> None:
    os.environ["LEFT_BEHIND"] = "1"
    del os.environ["PATH"]


def _directory() -> None:
    os.chdir("/")


def _dtype() -> None:
    torch.set_default_dtype(torch.float64)


def _threads() -> None:
    torch.set_num_threads(2)


def _grad() -> None:
    torch.set_grad_enabled(False)


def _deterministic() -> None:
    torch.use_deterministic_algorithms(True)


def _precision() -> None:
    torch.set_float32_matmul_precision("medium")


def _device() -> None:
    torch.set_default_device("meta")


def _random() -> None:
    torch.manual_seed(77)


def _handlers() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.setitimer(signal.ITIMER_REAL, 3600)


def _streams() -> None:
    sys.stdout = sys.stderr


def _path() -> None:
    sys.path.insert(0, "/nowhere")


def _patches() -> None:
    dist.all_reduce = torch.ones = os.getpid = None  # type: ignore[assignment]


def _autograd() -> None:
    torch.autograd.set_detect_anomaly(True)
    torch.set_autocast_enabled("cpu", True)


def _new_memory() -> None:
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def _sockets_and_files() -> None:
    socket.setdefaulttimeout(0.001)
    os.umask(0o777)


def _signal_mask() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])


def _input() -> None:
    setattr(sys, "stdin", None)  # noqa: B010


def _state() -> list[Any]:
    return [
        dict(os.environ),
        os.getcwd(),
        torch.get_default_dtype(),
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_float32_matmul_precision(),
        str(torch.get_default_device()),
        torch.rand(2).tolist(),
        [str(signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGUSR1)],
        signal.getitimer(signal.ITIMER_REAL),
        sys.stdout is sys.stderr,
        list(sys.path),
        dist.all_reduce.__name__,
        torch.ones.__name__,
        os.getpid(),
        torch.is_anomaly_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
        socket.getdefaulttimeout(),
        signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        sys.stdin is None,
        _umask(),
    ]


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


@pytest.mark.parametrize(
    "change",
    [
        _environment,
        _directory,
        _dtype,
        _threads,
        _grad,
        _deterministic,
        _precision,
        _device,
        _random,
        _handlers,
        _streams,
        _path,
        _patches,
        _autograd,
        _new_memory,
        _sockets_and_files,
        _signal_mask,
        _input,
    ],
    ids=lambda change: change.__name__.strip("_"),
)
def test_state_is_put_back_on_the_same_ranks(
    distributed_run: DistributedRun, change: Callable[[], None]
) -> None:
    before = distributed_run(_state)

    distributed_run(change)

    for now, then in zip(distributed_run(_state), before, strict=True):
        assert now[1:] == then[1:]
        assert set(now[0].items()) ^ set(then[0].items()) == set()


def test_stacks_can_still_be_had_after_a_function_took_the_signal(distributed_run: DistributedRun) -> None:
    distributed_run(_handlers)

    with pytest.raises(Exception, match=r"stack of rank 0:\n.*most recent call first"):
        distributed_run(lambda: threading.Event().wait(), timeout=0.3)


def test_a_patch_of_a_module_that_an_earlier_run_imported_is_undone(distributed_run: DistributedRun) -> None:
    def use() -> str:
        import execnet  # noqa: PLC0415

        return execnet.makegateway.__name__

    def patch() -> None:
        import execnet  # noqa: PLC0415

        setattr(execnet, "makegateway", dict)  # noqa: B010 - as monkeypatch does

    distributed_run(use)
    distributed_run(patch)

    assert distributed_run(use) == ["makegateway"] * 2


def test_ranks_with_a_thread_left_behind_are_replaced(distributed_run: DistributedRun) -> None:
    def leave_a_thread() -> int:
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        return os.getpid()

    before = distributed_run(leave_a_thread)

    assert not set(before) & set(distributed_run(os.getpid))


def test_a_thread_that_has_ended_costs_nothing(distributed_run: DistributedRun) -> None:
    def run_a_thread() -> int:
        thread = threading.Thread(target=int)
        thread.start()
        thread.join()
        return os.getpid()

    assert distributed_run(run_a_thread) == distributed_run(os.getpid)


def test_a_world_that_one_rank_alone_failed_to_make_does_not_keep_the_ranks_from_the_next(
    distributed_run: DistributedRun, tmp_path: Path
) -> None:
    """Torch counts groups that were never made, and names the next ones by their number."""

    def fail_on_rank_0() -> str:
        if dist.is_initialized() or current_rank().rank != 0:
            return ""
        place, limit = f"file://{tmp_path}/absent", timedelta(seconds=0.5)
        with pytest.raises(RuntimeError) as caught:
            dist.init_process_group("gloo", init_method=place, rank=0, world_size=2, timeout=limit)
        return str(caught.value)

    def add_up() -> float:
        x = torch.ones(1)
        dist.all_reduce(x)
        return x.item()

    error, _ = distributed_run(fail_on_rank_0, init_process_group=False)
    assert error
    assert distributed_run(add_up, timeout=20) == [2.0, 2.0]
