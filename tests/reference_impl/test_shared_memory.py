"""Groups that share memory: what ranks find out about each other, and what is left of those that go."""

from __future__ import annotations

import functools
import gc
import os
import random
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from pytest_vdist import DistributedRun, RankDiedError, current_rank
from pytest_vdist.reference_impl.communicators.base import DeviceCommunicatorBase
from pytest_vdist.reference_impl.communicators.cpu import CpuCommunicator
from pytest_vdist.reference_impl.communicators.shm import arena, links, mailbox, segment
from pytest_vdist.reference_impl.communicators.shm.records import (
    Call,
    Kind,
    Operation,
    Record,
    arrival,
    pack,
)
from pytest_vdist.reference_impl.coordinator import GroupCoordinator
from pytest_vdist.reference_impl.platform import register_communicator

ENVIRONMENT = {"VDIST_SHARED_MEMORY": "1"}
SHORT, LONG = 1.0, 60.0
# A peer's end is noticed within 0.1 s; the rest is for a machine on which nothing runs when it should.
SECONDS_TO_NOTICE = 2.0
Tensor = torch.Tensor


def group_of(
    ranks: list[int] | None = None, *, timeout: float = LONG, cpu_timeout: float = LONG
) -> GroupCoordinator:
    """Make a group of all ranks, which must come to share memory."""
    group = coordinator(ranks, timeout=timeout, cpu_timeout=cpu_timeout)
    assert communicator_of(group).shared_memory_obstacle is None
    return group


def coordinator(
    ranks: list[int] | None = None, *, timeout: float = LONG, cpu_timeout: float = LONG
) -> GroupCoordinator:
    everyone = list(range(dist.get_world_size())) if ranks is None else ranks
    return GroupCoordinator(
        [everyone], 0, group_name="tp", device_type="cpu", timeout=timeout, cpu_timeout=cpu_timeout
    )


def communicator_of(group: GroupCoordinator) -> CpuCommunicator:
    assert isinstance(group.device_communicator, CpuCommunicator)
    return group.device_communicator


def error_of(function: Callable[[], Any]) -> tuple[str, float]:
    """Return the text of a RuntimeError, or nothing, and the seconds until then."""
    start = time.monotonic()
    try:
        function()
    except RuntimeError as error:
        return str(error), time.monotonic() - start
    return "", time.monotonic() - start


def traces() -> list[str]:
    """Name what shared memory and sockets leave behind where names are."""
    unix = Path("/proc/net/unix").read_text().splitlines()
    return sorted(os.listdir("/dev/shm")) + [line.split()[-1] for line in unix if "vdist-" in line]


# ---- values ----


def made(rank: int, seed: int, numel: int, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(1000 * seed + rank)
    if dtype.is_floating_point:
        return torch.randn(numel, generator=generator).to(dtype)
    return torch.randint(0, 100, (numel,), generator=generator).to(dtype)


def check_sum(group: GroupCoordinator, seed: int, numel: int, dtype: torch.dtype) -> None:
    """Compare to the bit with the sum in the order of the ranks, which is then the same on every rank."""
    inputs = [made(rank, seed, numel, dtype) for rank in range(group.world_size)]
    expected = functools.reduce(torch.add, inputs)
    assert torch.equal(group.all_reduce(inputs[group.rank_in_group]), expected)
    even = numel // group.world_size * group.world_size
    chunk = group.reduce_scatter(inputs[group.rank_in_group][:even])
    assert torch.equal(chunk, expected[:even].view(group.world_size, -1)[group.rank_in_group])


def check_movement(group: GroupCoordinator, seed: int, numel: int, dtype: torch.dtype) -> None:
    everything = torch.cat([made(rank, seed, numel, dtype) for rank in range(group.world_size)])
    own = everything.view(group.world_size, -1)[group.rank_in_group].clone()
    root = seed % group.world_size
    assert torch.equal(group.all_gather(own), everything)
    gathered = group.gather(own, root)
    assert (gathered is None) == (group.rank_in_group != root)
    assert gathered is None or torch.equal(gathered, everything)
    assert torch.equal(group.broadcast(own, root), everything.view(group.world_size, -1)[root])


def check_tensor_dict(group: GroupCoordinator, seed: int, numel: int, dtype: torch.dtype) -> None:
    """Several dictionaries are on their way around the ring at once."""

    def of(rank: int, number: int) -> Tensor:
        return made(rank, seed + number, numel, dtype)

    count = seed % 70 + 1 if numel < 1000 else 3
    for number in range(count):
        group.isend_tensor_dict({"t": of(group.rank_in_group, number), "n": {"number": number}})
    src = (group.rank_in_group - 1) % group.world_size
    for number in range(count):
        received = group.recv_tensor_dict()
        assert received is not None
        assert received["n"] == {"number": number}
        assert torch.equal(received["t"], of(src, number))


def check_objects(group: GroupCoordinator, seed: int, numel: int, dtype: torch.dtype) -> None:
    root = seed % group.world_size
    sent = {"seed": seed, "text": "x" * numel, "dtype": dtype}
    assert group.broadcast_object(sent if group.rank_in_group == root else None, root) == sent
    group.barrier()


def check_torch(group: GroupCoordinator, seed: int, numel: int, dtype: torch.dtype) -> None:
    """torch.distributed goes on working in the groups, in between."""
    reduced = torch.full((numel % 7 + 1,), seed, dtype=torch.int64)
    dist.all_reduce(reduced, group=group.device_group)
    assert bool((reduced == seed * group.world_size).all())


CHECKS = (check_sum, check_movement, check_tensor_dict, check_objects, check_torch)
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.int8)


@pytest.mark.parametrize("world_size", [2, 3, 5, 8])
def test_any_sequence_of_operations_gives_the_values_of_its_definition(
    distributed_run: DistributedRun, world_size: int
) -> None:
    """Tensors of 24 slots are among them, and some that just fit or just do not."""
    slot = 1 << 16
    sizes = [0, 1, 7, 8192, 8193, slot // 8, slot, 3 * slot + 5]

    def body() -> None:
        segment.LARGEST_SLOT = slot
        choose = random.Random(world_size)
        everyone = group_of()
        backwards = group_of(list(reversed(range(world_size))))
        for _ in range(40):
            group = choose.choice([everyone, backwards])
            choose.choice(CHECKS)(group, choose.randrange(1000), choose.choice(sizes), choose.choice(DTYPES))
        everyone.barrier()
        everyone.destroy()
        backwards.destroy()

    distributed_run(body, world_size=world_size, env=ENVIRONMENT, timeout=120, fresh=True)


# ---- who may share ----


def test_a_rank_that_may_not_share_keeps_the_whole_group_to_torch(distributed_run: DistributedRun) -> None:
    def body() -> tuple[str | None, bool, list[float], Any]:
        os.environ["VDIST_SHARED_MEMORY"] = "0" if current_rank().rank == 1 else "1"
        group = coordinator()
        communicator = communicator_of(group)
        sums = group.all_reduce(torch.ones(2)).tolist()
        if group.rank_in_group == 0:
            group.send_tensor_dict({"t": torch.ones(2), "n": None})
        received = group.recv_tensor_dict() if group.rank_in_group == 1 else None
        return communicator.shared_memory_obstacle, communicator.supports_tensor_dict, sums, received

    for obstacle, supported, sums, _ in distributed_run(body, env=ENVIRONMENT):
        assert obstacle == "rank 1: VDIST_SHARED_MEMORY is not 1"
        assert not supported
        assert sums == [2.0, 2.0]


def test_ranks_that_read_another_token_do_not_share(distributed_run: DistributedRun) -> None:
    def body() -> str | None:
        if current_rank().rank == 1:
            segment.Segment.token = property(lambda self: b"of other memory!")  # type: ignore[assignment]
        group = coordinator()
        group.barrier()
        return communicator_of(group).shared_memory_obstacle

    obstacles = distributed_run(body, env=ENVIRONMENT, fresh=True)
    assert obstacles == ["rank 1 reads another token in the memory than rank 0 has written there"] * 2


def test_a_communicator_without_a_way_of_its_own_says_which_to_take(distributed_run: DistributedRun) -> None:
    def body() -> None:
        communicator = communicator_of(coordinator())
        with pytest.raises(NotImplementedError, match=r"call send_tensor_dict of the coordinator"):
            communicator.send_tensor_dict({}, 1)
        with pytest.raises(NotImplementedError, match=r"call recv_tensor_dict of the coordinator"):
            communicator.recv_tensor_dict(1)

    distributed_run(body, env={"VDIST_SHARED_MEMORY": "0"})


def test_a_communicator_that_has_never_heard_of_tensor_dicts_is_served_by_torch(
    distributed_run: DistributedRun,
) -> None:
    class Plain:
        """A vendor's communicator of old: the methods of the protocol that this test needs, and no others."""

        def __init__(self, **groups: Any) -> None:
            self._base = DeviceCommunicatorBase(**groups)

        def all_reduce(self, input_: Tensor) -> Tensor:
            return self._base.all_reduce(input_)

        def destroy(self) -> None:
            self._base.destroy()

    def body() -> dict[str, Any] | None:
        register_communicator("cpu", Plain)  # type: ignore[arg-type]
        group = coordinator()
        sent = {
            "none": None,
            "nested": {"columns": torch.arange(6.0).view(2, 3).t()},
            "empty": torch.empty(0, 2),
        }
        received = group.broadcast_tensor_dict(sent if group.rank_in_group == 1 else None, 1)
        group.isend_tensor_dict(sent)
        assert str(group.recv_tensor_dict()) == str(received)
        group.barrier()
        return received

    received, sent = distributed_run(body, env=ENVIRONMENT, fresh=True)
    assert str(received) == str(sent)


# ---- waits that end ----


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


# ---- what is left ----


@pytest.mark.parametrize("how", ["exit", "crash", "kill"])
def test_nothing_is_left_of_ranks_however_they_end(distributed_run: DistributedRun, how: str) -> None:
    def body() -> None:
        group = group_of()
        group.all_reduce(torch.ones(1 << 20))
        group.send_tensor_dict({"t": torch.ones(1 << 20)})
        group.barrier()
        if how == "kill" and group.rank_in_group == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "crash" and group.rank_in_group == 0:
            os._exit(1)

    before = traces()
    if how == "exit":
        distributed_run(body, env=ENVIRONMENT, fresh=True)
    else:
        with pytest.raises(RankDiedError):
            distributed_run(body, env=ENVIRONMENT, fresh=True)
    assert [trace for trace in traces() if trace not in before and "vdist" in trace] == []


def test_groups_that_come_and_go_leave_no_files_and_no_memory(distributed_run: DistributedRun) -> None:
    def body() -> list[tuple[int, int]]:
        counts = []
        for _ in range(4):
            for _ in range(3):
                group = group_of()
                group.all_reduce(torch.ones(1 << 16))
                group.send_tensor_dict({"t": torch.ones(1 << 16)})
                group.recv_tensor_dict()
                group.barrier()
                group.destroy()
            gc.collect()
            maps = Path("/proc/self/maps").read_text()
            mapped = maps.count("memfd:vdist-group") + maps.count("memfd:vdist-messages")
            counts.append((len(os.listdir("/proc/self/fd")), mapped))
        return counts

    for counts in distributed_run(body, env=ENVIRONMENT, fresh=True):
        assert counts[-1][0] <= counts[0][0], counts
        assert [mapped for _, mapped in counts] == [0] * 4


# ---- messages ----


def test_what_does_not_fit_goes_over_torch_in_order(distributed_run: DistributedRun) -> None:
    """Messages that fit, that never fit and for which there is no room just now arrive as they were sent."""

    def body() -> list[float]:
        arena.ARENA_SIZE = 1 << 20
        group = group_of()
        sizes = [10, 1 << 19, 200_000, 10, 100_000, 1 << 18, 3, 150_000, 200_000, 0, 1]
        if group.rank_in_group == 0:
            for number, size in enumerate(sizes):
                group.isend_tensor_dict({"t": torch.full((size,), float(number)), "number": number})
            group.barrier()
            group.barrier()  # what goes over torch is lost with a group that goes before it
            return []
        group.barrier()
        received = [group.recv_tensor_dict() for _ in sizes]
        group.barrier()
        assert [each["t"].numel() for each in received if each] == sizes
        assert all(each and (each["t"] == each["number"]).all() for each in received)
        return [each["number"] for each in received if each]

    assert distributed_run(body, env=ENVIRONMENT, fresh=True) == [[], list(range(11))]


def test_large_messages_are_read_while_they_are_written(distributed_run: DistributedRun) -> None:
    """Tensors end where a stretch does, before it and after it, many and one; small ones follow."""
    stretch = mailbox.STRETCH
    sizes = [
        [stretch] * 8,
        [stretch - 64, 64, 0, 1],
        [3 * stretch + 1],
        [1] * 300 + [stretch] + [5] * 9,
        [7],
        [],
    ]

    def of(rank: int, number: int) -> dict[str, Any]:
        return {f"{n}": made(rank, number + n, size, torch.uint8) for n, size in enumerate(sizes[number])}

    def body() -> None:
        group = group_of()
        other = 1 - group.rank_in_group
        for _ in range(3):
            for number in range(len(sizes)):
                group.isend_tensor_dict(of(group.rank_in_group, number))
            for number in range(len(sizes)):
                received, expected = group.recv_tensor_dict(), of(other, number)
                assert received is not None
                assert list(received) == list(expected)
                assert all(torch.equal(received[key], expected[key]) for key in expected)
        group.barrier()

    distributed_run(body, env=ENVIRONMENT)


def test_a_message_that_is_broken_off_ends_the_group(distributed_run: DistributedRun) -> None:
    def body() -> tuple[str, str]:
        group = group_of()
        if group.rank_in_group == 0:
            own = communicator_of(group)._mailbox
            assert own is not None

            def interrupted(dst: int, end: int) -> None:
                raise RuntimeError(f"interrupted at {end} on the way to {dst}")

            own._tell_written = interrupted  # type: ignore[method-assign]
            found = error_of(lambda: group.send_tensor_dict({"t": torch.zeros(mailbox.STRETCH)}, 1))[0]
        else:
            found = error_of(lambda: group.recv_tensor_dict(0))[0]
        return found, error_of(group.barrier)[0]

    sender, receiver = distributed_run(body, env=ENVIRONMENT)
    assert all("interrupted at" in text and "on the way to 1" in text for text in sender)
    assert "rank 0 of group" in receiver[0]
    assert receiver[1]


def test_a_sender_may_change_its_tensors_as_soon_as_it_has_sent(distributed_run: DistributedRun) -> None:
    def body() -> list[float] | None:
        group = group_of()
        if group.rank_in_group == 0:
            tensor = torch.zeros(1000)
            for number in range(20):
                group.send_tensor_dict({"t": tensor.fill_(number)})
            tensor.fill_(-1)
            group.barrier()
            return None
        group.barrier()
        received = [group.recv_tensor_dict() for _ in range(20)]
        return [each["t"].unique().item() for each in received if each]

    assert distributed_run(body, env=ENVIRONMENT)[1] == [float(number) for number in range(20)]


def test_a_ring_hands_out_what_is_free_and_nothing_else() -> None:
    choose = random.Random(5)
    ring = arena.Ring(100)
    held: list[tuple[int, int]] = []
    for _ in range(3000):
        size = choose.randrange(1, 60)
        start = ring.take(size) if choose.random() < 0.6 else None
        if start is not None:
            assert 0 <= start <= 100 - size
            assert all(start + size <= at or at + length <= start for at, length in held)
            held.append((start, size))
        elif held:
            ring.give_back(1)
            held.pop(0)
    assert arena.Ring(100).take(101) is None


def test_a_reader_gets_whole_records_however_they_arrive() -> None:
    """Records that come in pieces keep together, and descriptors stay with the records they came with."""
    sender, receiver = socket.socketpair()
    receiver.setblocking(False)
    link = links.Link(receiver, None)
    for byte in pack(Record(Kind.MESSAGE, number=7)) + pack(Record(Kind.RELEASED))[:5]:
        sender.send(bytes([byte]))
        link.read()
    sender.send(pack(Record(Kind.RELEASED))[5:] + pack(Record(Kind.MESSAGE, number=8)))
    read_end, write_end = os.pipe()
    socket.send_fds(sender, [pack(Record(Kind.MESSAGE_IN_NEW_ARENA, number=9))], [read_end])
    sender.send(pack(Record(Kind.MESSAGE, number=10)))
    for descriptor in (read_end, write_end):
        os.close(descriptor)
    link.read()
    link.read()
    assert [(record.number, descriptor is not None) for record, descriptor in link.messages] == [
        (7, False),
        (8, False),
        (9, True),
        (10, False),
    ]
    assert link.released == 1
    link.close()
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
            {rank: links.Link(ours, None) for rank, (ours, _) in enumerate(pairs, 1)},
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
