"""Groups that share memory: waits that end, and what ranks learn of those that go."""

from __future__ import annotations

import functools
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from pytest_vdist import DistributedRun, RankDiedError, RanksFailedError, RanksHungError
from pytest_vdist.reference_impl.communicators.shm import link, links
from pytest_vdist.reference_impl.communicators.shm.records import (
    Call,
    Kind,
    Operation,
    Record,
    arrival,
    pack,
)
from pytest_vdist.reference_impl.coordinator import GroupCoordinator
from tests.reference_impl.shared_groups import (
    ENVIRONMENT,
    LONG,
    SECONDS_TO_NOTICE,
    SHORT,
    communicator_of,
    error_of,
    group_of,
)


def test_every_wait_ends_at_its_timeout(distributed_run: DistributedRun) -> None:
    """Rank 1 comes to nothing; rank 0 waits in groups of its own, which no longer serve afterwards."""
    waits: dict[str, Callable[[GroupCoordinator], Any]] = {
        "all_reduce": lambda group: group.all_reduce(torch.ones(1)),
        "broadcast": lambda group: group.broadcast(torch.ones(1), 1),
        "barrier": lambda group: group.barrier(),
        "broadcast_object": lambda group: group.broadcast_object(None, 1),
        "recv_tensor_dict": lambda group: group.recv_tensor_dict(1),
    }

    def body() -> dict[str, tuple[str, float]]:
        found = {}
        for name, wait in waits.items():
            on_device = name in {"all_reduce", "broadcast"}
            group = group_of(timeout=SHORT if on_device else LONG, cpu_timeout=LONG if on_device else SHORT)
            if group.rank_in_group == 0:
                found[name] = error_of(functools.partial(wait, group))
            dist.barrier()
        return found

    found, _ = distributed_run(body, env=ENVIRONMENT)
    assert list(found) == list(waits)
    for name, (text, seconds) in found.items():
        assert "timed out after 1 s waiting for" in text, (name, text)
        assert "rank 1 of group" in text
        assert SHORT <= seconds < SHORT + 10


def test_the_runner_says_in_which_call_ranks_wait(distributed_run: DistributedRun) -> None:
    """As it does for those of torch.distributed, whose numbers they share."""

    def body() -> None:
        group = group_of()
        dist.barrier(group.cpu_group)
        group.barrier()
        if group.rank_in_group == 0:
            group.barrier()
        elif group.rank_in_group == 1:
            group.recv_tensor_dict(2)
        else:
            threading.Event().wait()

    with pytest.raises(RanksHungError) as hung:
        distributed_run(body, env=ENVIRONMENT, world_size=3, timeout=15, fresh=True)
    text = str(hung.value)
    assert re.search(r"rank 0 is in barrier #\d+ of group tp:0:cpu;", text), text
    assert "rank 1 is in recv #1 of group tp:0:cpu from rank 2;" in text
    assert re.search(r"rank 2 is after barrier #\d+ of group tp:0:cpu, at body", text), text


def test_the_runner_names_calls_that_do_not_match(distributed_run: DistributedRun) -> None:
    def body() -> None:
        group = group_of()
        group.broadcast(torch.ones(3), 0)
        group.broadcast(torch.ones(3), group.rank_in_group)

    with pytest.raises(RanksFailedError) as failed:
        distributed_run(body, env=ENVIRONMENT, fresh=True)
    assert (
        "mismatched collectives: #2 of group tp:0:device is broadcast with root 0 of float32[3] on rank 0, "
        "broadcast with root 1 of float32[3] on rank 1" in str(failed.value)
    )


def test_a_group_in_which_a_rank_gave_up_serves_no_rank_any_more(distributed_run: DistributedRun) -> None:
    def body() -> tuple[str, float]:
        group = group_of(timeout=SHORT)
        if group.rank_in_group == 0:
            error_of(lambda: group.all_reduce(torch.ones(1)))
        dist.barrier()
        return error_of(group.barrier)

    (own, _), (told, seconds) = distributed_run(body, env=ENVIRONMENT)
    assert "timed out after 1 s waiting for rank 1" in own
    assert "gave up waiting for this rank" in told
    assert seconds < SECONDS_TO_NOTICE


def test_ranks_in_different_collectives_are_told_so(distributed_run: DistributedRun) -> None:
    def body() -> str:
        group = group_of()
        if group.rank_in_group == 0:
            return error_of(lambda: group.all_reduce(torch.ones(3)))[0]
        return error_of(lambda: group.all_gather(torch.ones(4)))[0]

    texts = distributed_run(body, env=ENVIRONMENT)
    calls = ("all_reduce of 12 bytes of torch.float32", "all_gather of 16 bytes of torch.float32")
    assert any(all(call in text for call in calls) for text in texts), texts
    assert all("different collectives" in text or "every rank makes the same calls" in text for text in texts)


@pytest.mark.parametrize("world_size", [2, 4])
@pytest.mark.parametrize("waiting_for", ["a collective", "a message"])
def test_a_killed_rank_is_noticed_by_all_that_need_it(
    distributed_run: DistributedRun, tmp_path: Path, world_size: int, waiting_for: str
) -> None:
    """The process ends while a child of it, which has all its sockets, lives on."""
    victim = world_size - 1

    def body() -> tuple[str, float]:
        group = group_of()
        wait = group.barrier if waiting_for == "a collective" else lambda: group.recv_tensor_dict(victim)
        group.barrier()
        if group.rank_in_group == victim:
            if os.fork() == 0:
                signal.pause()
            time_file = tmp_path / "killed"
            time_file.write_text(str(time.monotonic()))
            os.kill(os.getpid(), signal.SIGKILL)
        text, _ = error_of(wait)
        ended = time.monotonic()
        (tmp_path / f"{group.rank_in_group}").write_text(
            f"{ended - float((tmp_path / 'killed').read_text())} {text}"
        )
        return text, ended

    with pytest.raises(RankDiedError):
        distributed_run(body, world_size=world_size, env=ENVIRONMENT, fresh=True)
    for rank in range(victim):
        seconds, _, text = (tmp_path / f"{rank}").read_text().partition(" ")
        assert f"rank {victim} of group" in text
        assert "is gone" in text
        assert float(seconds) < SECONDS_TO_NOTICE


def test_a_rank_that_has_done_its_part_may_go(distributed_run: DistributedRun) -> None:
    """Its last message is read, and the others finish what it was through with, after it has gone."""

    def body() -> list[Any]:
        group = group_of()
        if group.rank_in_group == 2:
            group.send_tensor_dict({"t": torch.arange(5)}, 0)
        group.barrier()
        if group.rank_in_group == 2:
            group.destroy()
        dist.barrier()
        if group.rank_in_group == 2:
            return []
        shared = communicator_of(group)._shared
        assert shared is not None
        assert {shared.segment.completed(rank) for rank in range(3)} == {1}
        last = group.recv_tensor_dict(2) if group.rank_in_group == 0 else None
        between = group.rank_in_group
        if between == 0:
            group.send_tensor_dict({"after": 1}, 1)
        after = group.recv_tensor_dict(0) if between == 1 else None
        return [last and last["t"].tolist(), after, error_of(group.barrier)[0]]

    first, second, _ = distributed_run(body, world_size=3, env=ENVIRONMENT)
    assert first[0] == [0, 1, 2, 3, 4]
    assert second[1] == {"after": 1}
    assert all("rank 2 of group" in each[2] and "is gone" in each[2] for each in (first, second))


def test_a_reader_gets_whole_records_however_they_arrive() -> None:
    """Records that come in pieces keep together, and descriptors stay with the records they came with."""
    sender, receiver = socket.socketpair()
    receiver.setblocking(False)
    peer = link.Link(receiver, None)
    for byte in pack(Record(Kind.MESSAGE, number=7)) + pack(Record(Kind.RELEASED))[:5]:
        sender.send(bytes([byte]))
        peer.read()
    sender.send(pack(Record(Kind.RELEASED))[5:] + pack(Record(Kind.MESSAGE, number=8)))
    read_end, write_end = os.pipe()
    socket.send_fds(sender, [pack(Record(Kind.MESSAGE_IN_NEW_ARENA, number=9))], [read_end])
    sender.send(pack(Record(Kind.MESSAGE, number=10)))
    for descriptor in (read_end, write_end):
        os.close(descriptor)
    peer.read()
    peer.read()
    assert [(record.number, descriptor is not None) for record, descriptor in peer.messages] == [
        (7, False),
        (8, False),
        (9, True),
        (10, False),
    ]
    assert peer.released == 1
    peer.close()
    sender.close()


def test_a_rank_that_was_through_a_step_is_missed_in_the_next() -> None:
    """While this rank waits in step 1 for rank 1, rank 2 goes: it may have been through, or not."""
    for was_through in (True, False):
        pairs = [socket.socketpair() for _ in range(2)]
        (first, _), (second, _) = [(theirs, ours) for ours, theirs in pairs]

        def has_completed(rank: int, step: int, *, through: bool = was_through, to: Any = first) -> bool:
            to.send(arrival(Call(Operation.BARRIER), step))  # rank 1 comes after the look at rank 2
            return through and step == 1

        group = links.Links(
            {rank: link.Link(ours, None) for rank, (ours, _) in enumerate(pairs, 1)},
            rank=0,
            has_completed=has_completed,
            group="tp",
            global_ranks=[0, 1, 2],
        )
        second.close()
        if was_through:
            assert group.arrival(1, 1, links.Deadline(LONG)).number == 1
        with pytest.raises(RuntimeError, match=r"rank 2 of group 'tp' \(global rank 2\) is gone"):
            group.arrival(1, 2, links.Deadline(LONG))
        with pytest.raises(RuntimeError, match="rank 2"):
            group.arrive(1, b"", 3, links.Deadline(LONG))
        group.close()
        first.close()
