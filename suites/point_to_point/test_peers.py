"""send and recv: who gets what, for every pair of ranks, in every group, in which order."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pytest_vdist import Coordinator, CoordinatorRun
from pytest_vdist.judge import movement_input
from pytest_vdist.judge.tensor_dicts import tensor_dict_differences

ROWS, COLUMNS = [[0, 1], [2, 3]], [[0, 2], [1, 3]]
SHAPES = [(5, 3), (1,), (4099,), (2, 2, 2)]

pytestmark = pytest.mark.vdist_operations("send")


def pairs_of(world_size: int) -> list[tuple[int, int]]:
    return [(src, dst) for src in range(world_size) for dst in range(world_size) if src != dst]


def message(group: Coordinator, shape: tuple[int, ...], src: int, seed: int) -> torch.Tensor:
    return movement_input(shape, torch.float32, rank=src, seed=seed).to(group.device)


@pytest.mark.vdist_world_size(min=2)
@pytest.mark.vdist_requirement("VD-P2P-001")
def test_tensors_arrive_for_every_pair(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """From every rank to every other one, a tensor arrives bit for bit, on the device of the receiver."""

    def body(group: Coordinator) -> list[str]:
        here = torch.empty(0, device=group.device).device
        found = []
        for src, dst in pairs_of(group.world_size):
            for seed, shape in enumerate(SHAPES):
                sent = message(group, shape, src, seed=10 * dst + seed)
                if group.rank_in_group == src:
                    group.send(sent, dst)
                elif group.rank_in_group == dst:
                    got = group.recv(sent.shape, sent.dtype, src)
                    found += _differences(f"{shape} from rank {src}", got, sent)
                    found += [f"it is on {got.device}, the rank on {here}"] if got.device != here else []
        return found

    assert coordinator_run(body, world_size=world_size) == [[]] * world_size


@pytest.mark.vdist_world_size(min=2)
@pytest.mark.vdist_requirement("VD-P2P-002")
def test_neighbours_are_the_default_peers(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """Without peers, rank 0 sends to 1, 1 to 2, and the last to 0."""

    def body(group: Coordinator) -> torch.Tensor:
        own = torch.full((7,), group.rank_in_group, dtype=torch.int64, device=group.device)
        if group.rank_in_group == 0:
            group.send(own)
            return group.recv((7,), torch.int64)
        received = group.recv((7,), torch.int64)
        group.send(own)
        return received

    results = coordinator_run(body, world_size=world_size)

    assert [result.tolist() for result in results] == [
        [(rank - 1) % world_size] * 7 for rank in range(world_size)
    ]


@pytest.mark.parametrize("group_ranks", [ROWS, COLUMNS], ids=["rows", "columns"])
@pytest.mark.vdist_world_size(min=4, max=4)
@pytest.mark.vdist_requirement("VD-P2P-006", "VD-P2P-002")
def test_peers_are_ranks_within_the_group(
    coordinator_run: CoordinatorRun, world_size: int, group_ranks: list[list[int]]
) -> None:
    """In each of two groups at once, peers, named or not, are ranks within the group."""

    def body(group: Coordinator) -> list[list[int]]:
        own = torch.full((3,), group.rank, dtype=torch.int64, device=group.device)
        received = []
        for named in (True, False):
            for src, dst in pairs_of(2):
                if group.rank_in_group == src:
                    group.send(own, dst if named else None)
                else:
                    received.append(group.recv((3,), torch.int64, src if named else None).tolist())
        return received

    results = coordinator_run(body, world_size=world_size, group_ranks=group_ranks)

    for first, second in group_ranks:
        assert (results[first], results[second]) == ([[second] * 3] * 2, [[first] * 3] * 2)


@pytest.mark.vdist_world_size(min=2)
@pytest.mark.vdist_requirement("VD-P2P-005")
def test_tensors_arrive_in_the_order_of_sending(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """Tensors of one shape, and then of changing sizes, arrive in the order in which they were sent."""

    def body(group: Coordinator) -> list[str]:
        shapes = [(8,)] * 20 + [(1 << 18,), (1,), (100_003,), (0,), (2,), (65_537,)]
        found = []
        for src, dst in ((0, group.world_size - 1), (group.world_size - 1, 0)):
            messages = [message(group, shape, src, seed) for seed, shape in enumerate(shapes)]
            if group.rank_in_group == src:
                for tensor in messages:
                    group.send(tensor, dst)
            elif group.rank_in_group == dst:
                received = [group.recv(tensor.shape, tensor.dtype, src) for tensor in messages]
                for n, (got, want) in enumerate(zip(received, messages, strict=True)):
                    found += _differences(f"tensor {n} from rank {src}", got, want)
        return found

    assert coordinator_run(body, world_size=world_size) == [[]] * world_size


@pytest.mark.vdist_world_size(min=3)
@pytest.mark.vdist_requirement("VD-P2P-008")
def test_tensors_of_several_senders_are_kept_apart(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """A receiver that asks all the others in turn gets each one's tensors, in each one's order."""

    def body(group: Coordinator) -> list[list[int]]:
        received: list[list[int]] = []
        for dst in range(group.world_size):
            if group.rank_in_group != dst:
                for n in range(4):
                    group.send(torch.tensor([group.rank_in_group, n], device=group.device), dst)
                continue
            senders = [src for src in reversed(range(group.world_size)) if src != dst]
            received = [group.recv((2,), torch.int64, src).tolist() for _ in range(2) for src in senders]
            received += [
                group.recv((2,), torch.int64, src).tolist() for src in reversed(senders) for _ in range(2)
            ]
        return received

    for rank, received in enumerate(coordinator_run(body, world_size=world_size)):
        senders = [src for src in reversed(range(world_size)) if src != rank]
        asked = [[src, n] for n in range(2) for src in senders]
        asked += [[src, n] for src in reversed(senders) for n in (2, 3)]
        assert received == asked, f"rank {rank}"


def _differences(what: str, got: Any, want: torch.Tensor) -> list[str]:
    return tensor_dict_differences({what: got}, {what: want})
