"""send_tensor_dict and recv_tensor_dict: a dictionary of tensors and other values, from rank to rank."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pytest_vdist import Coordinator, CoordinatorRun
from pytest_vdist.judge import LAYOUTS, fit_values, guard, layout_fits, movement_input
from pytest_vdist.judge.tensor_dicts import tensor_dict_differences, tensor_dict_input

ROWS, COLUMNS = [[0, 1], [2, 3]], [[0, 2], [1, 3]]
VIEW_DTYPES = (torch.float32, torch.bfloat16, torch.int64, torch.bool)


def pairs_of(world_size: int) -> list[tuple[int, int]]:
    return [(src, dst) for src in range(world_size) for dst in range(world_size) if src != dst]


def small_dicts(src: int, device: torch.device) -> list[dict[str, Any]]:
    """Make dictionaries without any element of a tensor, but for the last."""
    return [
        {},
        {"none": None},
        {"values": {"list": [src, {"deep": None}], "empty": {}}, "text": "", "number": src},
        {"empty": torch.empty(0, device=device), "rows": torch.empty(2, 0, 3, dtype=torch.int64)},
        {"one": torch.tensor([src], dtype=torch.int32, device=device)},
    ]


@pytest.mark.vdist_world_size(min=2)
@pytest.mark.vdist_requirement("VD-TD-002", "VD-TD-004", "VD-TD-006", "VD-TD-012")
def test_dictionaries_arrive_for_every_pair(
    coordinator_run: CoordinatorRun, world_size: int, movement_dtypes: list[torch.dtype]
) -> None:
    """Keys in order, tensors of every dtype on CPU and device, and values arrive; the sender's own stay."""

    def body(group: Coordinator) -> list[str]:
        def made_by(src: int, dst: int) -> dict[str, Any]:
            return tensor_dict_input(movement_dtypes, rank=src, seed=dst, device=group.device)

        found, received = [], {}
        for src, dst in pairs_of(group.world_size):
            if group.rank_in_group == src:
                own = made_by(src, dst)
                members = dict(own)
                group.send_tensor_dict(own, dst)
                found += [f"own, after: {each}" for each in tensor_dict_differences(own, made_by(src, dst))]
                found += [f"own {key!r} was replaced" for key in own if own[key] is not members[key]]
            elif group.rank_in_group == dst:
                received[src] = group.recv_tensor_dict(src)
        return found + [
            f"from rank {src}: {difference}"
            for src, got in received.items()
            for difference in tensor_dict_differences(got, made_by(src, group.rank_in_group))
        ]

    assert coordinator_run(body, world_size=world_size) == [[]] * world_size


@pytest.mark.vdist_world_size(min=2)
@pytest.mark.vdist_requirement("VD-TD-006")
def test_neighbours_are_the_default_peers(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """Without peers, rank 0 sends to 1, 1 to 2, and the last to 0."""

    def body(group: Coordinator) -> Any:
        own = {"from": group.rank_in_group, "tensor": torch.full((9,), group.rank, device=group.device)}
        if group.rank_in_group == 0:
            group.send_tensor_dict(own)
            return group.recv_tensor_dict()
        received = group.recv_tensor_dict()
        group.send_tensor_dict(own)
        return received

    for rank, received in enumerate(coordinator_run(body, world_size=world_size)):
        previous = (rank - 1) % world_size
        want = {"from": previous, "tensor": torch.full((9,), previous)}
        assert tensor_dict_differences(received, want) == [], f"rank {rank}"


@pytest.mark.parametrize("group_ranks", [ROWS, COLUMNS], ids=["rows", "columns"])
@pytest.mark.vdist_world_size(min=4, max=4)
@pytest.mark.vdist_requirement("VD-TD-006")
def test_peers_are_ranks_within_the_group(
    coordinator_run: CoordinatorRun, world_size: int, group_ranks: list[list[int]]
) -> None:
    """In each of two groups at once, peers are named by their ranks within the group."""

    def body(group: Coordinator) -> Any:
        own = {"tensor": torch.full((9,), group.rank, device=group.device)}
        if group.rank_in_group == 0:
            group.send_tensor_dict(own, dst=1)
            return group.recv_tensor_dict()
        received = group.recv_tensor_dict(src=0)
        group.send_tensor_dict(own)
        return received

    results = coordinator_run(body, world_size=world_size, group_ranks=group_ranks)

    for first, second in group_ranks:
        for rank, peer in ((first, second), (second, first)):
            assert tensor_dict_differences(results[rank], {"tensor": torch.full((9,), peer)}) == []


@pytest.mark.vdist_world_size(min=2)
@pytest.mark.vdist_requirement("VD-TD-002", "VD-TD-003")
def test_nothing_is_too_small_to_be_sent(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """Empty dictionaries, empty tensors, None and nested values arrive, in the order of sending."""

    def body(group: Coordinator) -> list[str]:
        found = []
        for src, dst in pairs_of(group.world_size):
            for sent in small_dicts(src, group.device):
                if group.rank_in_group == src:
                    group.send_tensor_dict(sent, dst)
                elif group.rank_in_group == dst:
                    got = group.recv_tensor_dict(src)
                    found += [f"{sent} from rank {src}: {d}" for d in tensor_dict_differences(got, sent)]
        return found

    assert coordinator_run(body, world_size=world_size) == [[]] * world_size


@pytest.mark.vdist_world_size(min=2)
@pytest.mark.vdist_requirement("VD-TD-005", "VD-TD-012")
def test_views_are_sent_as_they_look(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """Views of any strides and offset arrive with their values; neither they nor what is around change."""

    def body(group: Coordinator) -> list[str]:
        found = []
        for src, dst in ((0, group.world_size - 1), (group.world_size - 1, 0)):
            guarded = {
                f"{layout} {shape} {dtype}": guard(
                    fit_values(movement_input(shape, dtype, rank=src, seed=1), layout), layout, group.device
                )
                for layout in LAYOUTS
                for shape in ((6,), (4, 3), (2, 3, 5))
                for dtype in VIEW_DTYPES
                if layout_fits(layout, shape)
            }
            sent = {key: each.tensor for key, each in guarded.items()}
            if group.rank_in_group == src:
                group.send_tensor_dict(sent, dst)
                found += [
                    f"{key} was changed by the call"
                    for key, each in guarded.items()
                    if not (each.values_intact() and each.canaries_intact())
                ]
            elif group.rank_in_group == dst:
                got = group.recv_tensor_dict(src)
                found += [f"from rank {src}: {each}" for each in tensor_dict_differences(got, sent)]
        return found

    assert coordinator_run(body, world_size=world_size) == [[]] * world_size


@pytest.mark.vdist_world_size(min=2)
@pytest.mark.vdist_requirement("VD-TD-014")
def test_tensors_in_nested_dictionaries_are_sent(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """Tensors in dictionaries inside the dictionary arrive, on CPU and device."""

    def body(group: Coordinator) -> list[str]:
        inner = tensor_dict_input([torch.bfloat16], rank=1, seed=1, device=group.device)
        sent = {"outer": inner, "first": torch.arange(3), "deep": {"deeper": {"deepest": inner}}}
        found = []
        for src, dst in pairs_of(group.world_size):
            if group.rank_in_group == src:
                group.send_tensor_dict(sent, dst)
            elif group.rank_in_group == dst:
                got = group.recv_tensor_dict(src)
                found += [f"from rank {src}: {each}" for each in tensor_dict_differences(got, sent)]
        return found

    assert coordinator_run(body, world_size=world_size) == [[]] * world_size


@pytest.mark.vdist_world_size(min=2)
@pytest.mark.vdist_requirement("VD-TD-012")
def test_no_memory_is_shared_with_the_sender(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """What the receiver writes into its tensors reaches the sender's no more, and the other way round."""

    def body(group: Coordinator) -> list[str]:
        def made() -> dict[str, Any]:
            return {"a": torch.arange(9, device=group.device), "b": torch.arange(9).reshape(3, 3).t()}

        ours = made()
        if group.rank_in_group == 0:
            group.send_tensor_dict(ours, dst=1)
        elif group.rank_in_group == 1:
            received = group.recv_tensor_dict(src=0)
            assert received is not None
            ours = received
        found = []
        group.barrier()
        if group.rank_in_group == 1:
            _overwrite(ours, 1)
        group.barrier()
        if group.rank_in_group == 0:
            found += tensor_dict_differences(ours, made())
            _overwrite(ours, 2)
        group.barrier()
        if group.rank_in_group == 1:
            found += [f"{key}: {value}" for key, value in ours.items() if not bool((value == 1).all())]
        return found

    assert coordinator_run(body, world_size=world_size) == [[]] * world_size


@pytest.mark.vdist_world_size(max=1)
@pytest.mark.vdist_requirement("VD-TD-013")
def test_a_group_of_one_rank_sends_to_nobody(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """In a group of one rank a send returns the dictionary, and a receive returns None."""

    def body(group: Coordinator) -> tuple[Any, Any, int, tuple[Any, int, int]]:
        own = {"tensor": torch.arange(4, device=group.device), "none": None}
        handles = group.isend_tensor_dict(own)
        received, waiting, postprocess = group.irecv_tensor_dict()
        return (
            group.send_tensor_dict(own),
            group.recv_tensor_dict(),
            len(handles),
            (received, len(waiting), len(postprocess)),
        )

    [(sent, received, handles, received_later)] = coordinator_run(body, world_size=world_size)

    assert tensor_dict_differences(sent, {"tensor": torch.arange(4), "none": None}) == []
    assert received is None
    assert handles == 0
    assert received_later == (None, 0, 0)


def _overwrite(tensor_dict: dict[str, Any], value: int) -> None:
    for tensor in tensor_dict.values():
        tensor.fill_(value)
