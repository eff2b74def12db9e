"""What simccl refuses, when it gives up waiting, and how it is aborted."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import torch
import torch.distributed as dist

from pytest_vdist import DistributedRun, RanksFailedError, current_rank

from .operands import all_gather_single, connect, meet, untyped_dist

REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "a tensor of the CPU": (
        lambda: dist.group.WORLD._get_backend(torch.device("simdev")).allreduce([torch.ones(1)]),  # type: ignore[union-attr]
        "simccl moves strided tensors on simdev, got a tensor on cpu with layout Strided",
    ),
    "an output of the CPU": (
        lambda: dist.group.WORLD._get_backend(torch.device("simdev")).allgather(  # type: ignore[union-attr]
            [[torch.ones(1) for _ in range(4)]], [torch.ones(1, device="simdev")]
        ),
        "simccl moves strided tensors on simdev, got a tensor on cpu with layout Strided",
    ),
    "a dtype that gloo cannot sum": (
        lambda: dist.all_reduce(torch.ones(1, dtype=torch.int16, device="simdev")),
        "simccl does not reduce Short: convert the tensor first",
    ),
    "an average of integers": (
        lambda: dist.all_reduce(torch.ones(1, dtype=torch.int32, device="simdev"), op=dist.ReduceOp.AVG),
        "simccl averages floating-point tensors, got Int: divide the SUM",
    ),
    "a bitwise operation on floats": (
        lambda: dist.all_reduce(torch.ones(1, device="simdev"), op=dist.ReduceOp.BXOR),
        "simccl has bitwise operations for integers only, got Float",
    ),
    "a scaled sum": (
        lambda: dist.all_reduce(torch.ones(1, device="simdev"), op=untyped_dist._make_nccl_premul_sum(2.0)),
        "simccl has no PREMUL_SUM: multiply before a SUM",
    ),
    "an output that overlaps itself": (
        lambda: dist.broadcast(torch.zeros(1, device="simdev").expand(4), src=1),
        "unsupported operation: more than one element of the written-to tensor refers to a single memory",
    ),
    "a message from a strided tensor": (
        lambda: dist.isend(torch.zeros(4, device="simdev")[::2], (dist.get_rank() + 1) % 4),
        "ensor",
    ),
    "splits that do not add up": (
        lambda: dist.all_to_all_single(
            torch.zeros(4, device="simdev"), torch.zeros(4, device="simdev"), [1, 1, 1, 1], [1, 1, 1, 2]
        ),
        "Split sizes doesn't match total dim 0 size",
    ),
    "an output of another size": (
        lambda: all_gather_single(torch.zeros(7, device="simdev"), torch.zeros(2, device="simdev")),
        "",
    ),
}


def test_what_gloo_would_get_wrong_is_refused_before_traffic(distributed_run: DistributedRun) -> None:
    def body() -> dict[str, str]:
        texts = {}
        # On one rank: a refusal that came after traffic had begun would wait for the others.
        for name, (act, _) in REFUSED.items() if dist.get_rank() == 0 else ():
            try:
                act()
                texts[name] = "no error"
            except (RuntimeError, ValueError) as error:
                texts[name] = str(error)
        tensor = torch.ones(1, device="simdev")
        dist.all_reduce(tensor)
        return {**texts, "afterwards": f"the group sums to {tensor.item():g}"}

    results = distributed_run(body)
    assert [texts.pop("afterwards") for texts in results] == ["the group sums to 4"] * 4
    for name, (_, wanted) in REFUSED.items():
        assert results[0][name] != "no error", name
        assert wanted in results[0][name], name


def test_a_group_bound_to_a_device_refuses_tensors_of_another(distributed_run: DistributedRun) -> None:
    def body() -> str:
        device = current_rank().device
        dist.init_process_group(device_id=device)
        other = torch.ones(1, device=torch.device("simdev", 1 - device.index))
        try:
            dist.all_reduce(other)
        except RuntimeError as error:
            return str(error)
        return "no error"

    assert distributed_run(body, world_size=2, init_process_group=False) == [
        "this simccl group is bound to simdev:0, got a tensor on simdev:1",
        "this simccl group is bound to simdev:1, got a tensor on simdev:0",
    ]


@pytest.mark.parametrize("operation", ["all_reduce", "barrier", "recv"])
def test_an_operation_ends_at_the_timeout_of_its_group(
    distributed_run: DistributedRun, operation: str
) -> None:
    def body() -> float:
        group = dist.new_group(timeout=timedelta(seconds=0.5))
        if dist.get_rank() == 1:
            meet()
            return 0.0
        tensor = torch.ones(2, device=current_rank().device)
        start = time.monotonic()
        try:
            acts: dict[str, Callable[[], Any]] = {
                "all_reduce": lambda: dist.all_reduce(tensor, group=group),
                "barrier": lambda: meet(group),
                "recv": lambda: dist.recv(tensor, src=1, group=group),
            }
            acts[operation]()
        except RuntimeError:
            waited = time.monotonic() - start
            meet()
            return waited
        return -1.0

    waited, _ = distributed_run(body, world_size=2)
    assert 0.45 < waited < 5.0


def test_ranks_that_send_to_each_other_first_wait_for_each_other_unless_they_are_connected(
    distributed_run: DistributedRun,
) -> None:
    """As over NCCL, where nobody but the first message connects two ranks, in one direction."""

    def body() -> tuple[str, list[float]]:
        other = 1 - dist.get_rank()
        mine = torch.full((2,), float(dist.get_rank()), device=current_rank().device)
        theirs = torch.empty_like(mine)
        try:
            dist.isend(mine, other, group=dist.new_group(timeout=timedelta(seconds=1.0)))
        except RuntimeError as error:
            refusal = str(error)
        else:
            refusal = ""
        connect()
        sending = dist.isend(mine, other)
        meet()
        dist.recv(theirs, other)
        assert sending is not None
        sending.wait()
        return refusal, theirs.tolist()

    refusals, received = zip(*distributed_run(body, world_size=2), strict=True)
    assert all(refusals)
    # Who gives up first closes the connection, which the other may be told instead of its own time limit.
    assert any("Timed out waiting" in refusal for refusal in refusals), refusals
    assert received == ([1.0, 1.0], [0.0, 0.0])


@pytest.mark.parametrize("operation", ["all_reduce", "recv"])
def test_abort_ends_what_is_pending_and_refuses_what_follows(
    distributed_run: DistributedRun, operation: str
) -> None:
    def body() -> list[str]:
        connect()
        if dist.get_rank() == 1:
            meet()
            return []
        backend: Any = dist.group.WORLD._get_backend(torch.device("simdev"))  # type: ignore[union-attr]
        tensor = torch.ones(2, device=current_rank().device)
        work: Any = backend.allreduce([tensor]) if operation == "all_reduce" else backend.recv([tensor], 1, 0)
        backend.abort()
        texts = []
        for act in (work.wait, lambda: dist.all_reduce(tensor)):
            try:
                act()
            except RuntimeError as error:
                texts.append(str(error))
        return texts

    with pytest.raises(RanksFailedError) as caught:
        distributed_run(lambda: _report(body()), world_size=2, timeout=10.0, fresh=True)
    aborted = "the simccl communicator was aborted: destroy the process group and make a new one"
    assert f"rank 0 found {[aborted, aborted]}" in str(caught.value)


def _report(found: list[str]) -> None:
    """End the run on the rank that has aborted; its peer waits in a barrier for its timeout."""
    raise AssertionError(f"rank {dist.get_rank()} found {found}")
