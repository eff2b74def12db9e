"""Messages between the ranks of a process group: one by one, in flight together, and in batches."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

from pytest_vdist.judge import movement_input, same_bits
from pytest_vdist.process_groups.judgement import GroupRun

SHAPES = ((3,), (0,), (5, 3), (), (4099,))


def message(src: int, dst: int, number: int, dtype: torch.dtype) -> torch.Tensor:
    """Return message `number` from one rank of the group to another, on the CPU."""
    shape = SHAPES[number % len(SHAPES)]
    return movement_input(shape, dtype, rank=src, seed=1000 * dst + number)


def wrong(what: str, got: torch.Tensor, want: torch.Tensor) -> list[str]:
    return [] if same_bits(got.cpu(), want) else [f"{what}: got {got.tolist()}, want {want.tolist()}"[:300]]


@pytest.mark.vdist_world_size(min=2)
@pytest.mark.vdist_requirement("VD-PG-007")
def test_messages_arrive_whole_and_in_order(
    process_group_run: GroupRun, world_size: int, movement_dtypes: list[torch.dtype]
) -> None:
    """What every pair of ranks sends, in both directions and all dtypes, arrives in the order of sending."""

    def body(group: dist.ProcessGroup, device: torch.device) -> list[str]:
        here, size, found = dist.get_rank(group), dist.get_world_size(group), []
        pairs = [(src, dst) for src in range(size) for dst in range(size) if src != dst]
        for src, dst in pairs:
            messages = [
                message(src, dst, number, dtype) for number in range(len(SHAPES)) for dtype in movement_dtypes
            ]
            if here == src:
                for each in messages:
                    dist.send(each.to(device), group_dst=dst, group=group)
            if here == dst:
                for number, each in enumerate(messages):
                    got = torch.empty_like(each, device=device)
                    dist.recv(got, src=dist.get_global_rank(group, src), group=group)
                    found += wrong(f"message {number} from rank {src}", got, each)
        return found

    assert process_group_run(body, world_size=world_size) == [[]] * world_size


@pytest.mark.vdist_world_size(min=2)
@pytest.mark.vdist_requirement("VD-PG-008")
def test_messages_in_flight_are_not_mixed_up(process_group_run: GroupRun, world_size: int) -> None:
    """Messages started one after the other, and waited for from the last to the first, are right."""

    def body(group: dist.ProcessGroup, device: torch.device) -> list[str]:
        here, last = dist.get_rank(group), dist.get_world_size(group) - 1
        if here not in {0, last}:
            return []
        wanted = [message(0, last, number, torch.float32) for number in range(5)]
        if here == 0:
            sent = [each.to(device) for each in wanted]
            works = [dist.isend(each, group_dst=last, group=group) for each in sent]
        else:
            received = [torch.empty_like(each, device=device) for each in wanted]
            works = [dist.irecv(each, group_src=0, group=group) for each in received]
        for work in reversed(works):
            assert work is not None, "a handle"
            work.wait()
        if here == 0:
            return []
        return [
            error
            for number, (got, want) in enumerate(zip(received, wanted, strict=True))
            for error in wrong(f"message {number}", got, want)
        ]

    assert process_group_run(body, world_size=world_size) == [[]] * world_size


@pytest.mark.vdist_world_size(min=2)
@pytest.mark.vdist_requirement("VD-PG-009")
@pytest.mark.parametrize("rounds", [1, 3])
def test_batches_of_messages_do_not_wait_for_each_other(
    process_group_run: GroupRun, world_size: int, rounds: int
) -> None:
    """In rings of both directions at once every rank sends before any has received, and all is right."""

    def body(group: dist.ProcessGroup, device: torch.device) -> list[str]:
        here, size, found = dist.get_rank(group), dist.get_world_size(group), []
        after, before = (here + 1) % size, (here - 1) % size
        for turn in range(rounds):
            operations, expected = [], []
            for number in range(turn, turn + 3):
                for dst, src, way in ((after, before, 0), (before, after, 1)):
                    sent = message(here, 2 * dst + way, number, torch.float32).to(device)
                    want = message(src, 2 * here + way, number, torch.float32)
                    got = torch.empty_like(want, device=device)
                    operations += [
                        dist.P2POp(dist.isend, sent, group=group, group_peer=dst),
                        dist.P2POp(dist.irecv, got, group=group, group_peer=src),
                    ]
                    expected.append((f"turn {turn}: message {number} from rank {src}", got, want))
            for work in dist.batch_isend_irecv(operations):
                work.wait()
            for what, got, want in expected:
                found += wrong(what, got, want)
        return found

    assert process_group_run(body, world_size=world_size) == [[]] * world_size
