"""Groups that share memory: tensor dicts, in the arena and in memory that is lent."""

from __future__ import annotations

import os
import random
from typing import Any

import pytest
import torch

from pytest_vdist import DistributedRun
from pytest_vdist.reference_impl.communicators.shm import arena, loans, mailbox
from tests.reference_impl.shared_groups import ENVIRONMENT, communicator_of, group_of, made


def test_what_does_not_fit_goes_over_torch_in_order(distributed_run: DistributedRun) -> None:
    """Messages that fit, that never fit and for which there is no room just now arrive as they were sent."""

    def body() -> list[float]:
        arena.ARENA_SIZE, loans.MOST_LOANS = 1 << 20, 1
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


def test_messages_of_every_size_arrive_whole(distributed_run: DistributedRun) -> None:
    """Tensors of many sizes, in the arena, in memory that is lent, and large and small in one message."""
    least = mailbox.SMALLEST_LOAN
    sizes = [[least] * 8, [least - 192, 64, 0, 1], [5 * least + 1], [1] * 300 + [least, 5], [7], []]

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


def large(number: float, columns: int = 1 << 10) -> dict[str, Any]:
    """Make a dictionary that goes in a loan: two large tensors and a small one."""
    rows = torch.full((1 << 8, columns), number)
    return {"a": rows, "b": rows.t(), "bf16": rows.bfloat16(), "small": torch.full((3,), number)}


def test_what_was_received_is_the_receivers_alone(distributed_run: DistributedRun) -> None:
    """Messages that are kept, and written to, keep their values, also after the group."""

    def body() -> None:
        group = group_of()
        kept = []
        for number in range(24):  # more than are lent at a time
            if group.rank_in_group == 0:
                group.send_tensor_dict(large(number))
            else:
                received = group.recv_tensor_dict()
                assert received is not None
                assert torch.equal(received["a"], torch.full((1 << 8, 1 << 10), float(number)))
                received["a"].add_(1000)
                kept.append(received)
        group.barrier()
        group.destroy()
        storages = set()
        for number, each in enumerate(kept):
            assert (each["a"] == 1000 + number).all()
            assert all((each[key] == number).all() for key in ("b", "bf16", "small"))
            storages |= {tensor.untyped_storage().data_ptr() for tensor in each.values()}
            assert each["a"].untyped_storage().nbytes() == each["a"].nbytes
        assert len(storages) == 4 * len(kept)

    distributed_run(body, env=ENVIRONMENT, timeout=60)


def test_memory_is_lent_again_when_the_last_large_tensor_of_a_message_ends(
    distributed_run: DistributedRun,
) -> None:
    """Also when the receiver keeps a small one; what does not fit what came back lets that go."""

    def body() -> list[Any]:
        group = group_of()
        own = communicator_of(group)._mailbox
        assert own is not None
        small = []
        for number in range(10):
            if group.rank_in_group == 0:
                group.send_tensor_dict(large(number) if number < 8 else large(number, columns=1 << 13))
            else:
                received = group.recv_tensor_dict()
                assert received is not None
                assert (received["b"] == number).all()
                small.append(received["small"])
                del received
            group.barrier()
        if group.rank_in_group == 1:
            borrower, _ = own._borrowers[0]
            return [[tensor[0].item() for tensor in small], sorted(borrower._mapped)]
        return [sorted(own._lenders[1]._out)]

    lender, borrower = distributed_run(body, env=ENVIRONMENT)
    assert lender == [[1]]
    assert borrower == [[float(number) for number in range(10)], [1]]


def test_the_child_of_a_fork_gives_nothing_back(distributed_run: DistributedRun) -> None:
    """Its copies of received tensors end with it, while its parent goes on using them."""

    def body() -> None:
        group = group_of()
        if group.rank_in_group == 0:
            group.send_tensor_dict(large(1))
            group.barrier()
            group.send_tensor_dict(large(2))
            return
        received = group.recv_tensor_dict()
        child = os.fork()
        if child == 0:
            del received
            os._exit(0)
        os.waitpid(child, 0)
        group.barrier()
        group.recv_tensor_dict()
        assert received is not None
        assert (received["a"] == 1).all()

    distributed_run(body, env=ENVIRONMENT, fresh=True)


def test_a_message_that_does_not_get_written_leaves_the_group_whole(distributed_run: DistributedRun) -> None:
    def body() -> Any:
        group = group_of()
        if group.rank_in_group == 1:
            return group.recv_tensor_dict()
        write = mailbox._Message.write

        def interrupted(message: Any, memory: torch.Tensor) -> None:
            write(message, memory)
            raise RuntimeError("interrupted")

        mailbox._Message.write = interrupted  # type: ignore[method-assign, assignment]
        with pytest.raises(RuntimeError, match="interrupted"):
            group.send_tensor_dict(large(1))
        mailbox._Message.write = write  # type: ignore[method-assign]
        group.send_tensor_dict(large(2))
        return communicator_of(group)._mailbox._lenders[1]._out.keys()  # type: ignore[union-attr]

    sender, received = distributed_run(body, env=ENVIRONMENT, fresh=True)
    assert list(sender) == [1]
    assert (received["a"] == 2).all()


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
