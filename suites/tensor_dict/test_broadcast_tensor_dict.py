"""broadcast_tensor_dict: one rank's dictionary of tensors and other values, on every rank."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pytest_vdist import Coordinator, CoordinatorRun
from pytest_vdist.judge import LAYOUTS, fit_values, guard, layout_fits, movement_input
from pytest_vdist.judge.tensor_dicts import tensor_dict_differences, tensor_dict_input

ROWS = [[0, 1], [2, 3]]
VIEW_DTYPES = (torch.float32, torch.bfloat16, torch.int64, torch.bool)


def small_dicts(src: int) -> list[dict[str, Any]]:
    """Make dictionaries without any element of a tensor, but for the last."""
    return [
        {},
        {"none": None},
        {"values": {"list": [src, {"deep": None}], "empty": {}}, "text": "", "number": src},
        {"empty": torch.empty(0), "empty of rows": torch.empty(2, 0, 3, dtype=torch.int64)},
        {"one": torch.tensor([src], dtype=torch.int32)},
    ]


@pytest.mark.vdist_world_size(min=2)
@pytest.mark.vdist_requirement("VD-TD-001", "VD-TD-004", "VD-TD-006", "VD-TD-012")
def test_every_rank_gets_the_dictionary_of_any_source(
    coordinator_run: CoordinatorRun, world_size: int, movement_dtypes: list[torch.dtype]
) -> None:
    """Keys in order, tensors of every dtype on CPU and device, and values arrive; the source's own stay."""

    def body(group: Coordinator) -> list[str]:
        def made_by(src: int) -> dict[str, Any]:
            return tensor_dict_input(movement_dtypes, rank=src, seed=src, device=group.device)

        own = made_by(group.rank_in_group)
        members = dict(own)
        received = [
            group.broadcast_tensor_dict(own if src == group.rank_in_group else None, src=src)
            for src in range(group.world_size)
        ]
        found = [
            f"from rank {src}: {difference}"
            for src, got in enumerate(received)
            for difference in tensor_dict_differences(got, made_by(src))
        ]
        found += [
            f"own, after: {each}" for each in tensor_dict_differences(own, made_by(group.rank_in_group))
        ]
        return found + [f"own {key!r} was replaced" for key in own if own[key] is not members[key]]

    assert coordinator_run(body, world_size=world_size) == [[]] * world_size


@pytest.mark.vdist_world_size(min=2)
@pytest.mark.vdist_requirement("VD-TD-003")
def test_nothing_is_too_small_to_be_broadcast(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """Empty dictionaries, empty tensors, None and nested values arrive, one after the other."""

    def body(group: Coordinator) -> list[str]:
        found = []
        for src in range(group.world_size):
            for sent in small_dicts(src):
                on_device = _on(group.device, sent)
                got = group.broadcast_tensor_dict(on_device if src == group.rank_in_group else None, src)
                found += [f"{sent} from rank {src}: {d}" for d in tensor_dict_differences(got, on_device)]
        return found

    assert coordinator_run(body, world_size=world_size) == [[]] * world_size


@pytest.mark.vdist_world_size(min=2)
@pytest.mark.vdist_requirement("VD-TD-005", "VD-TD-012")
def test_views_are_broadcast_as_they_look(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """Views of any strides and offset arrive with their values; neither they nor what is around change."""

    def body(group: Coordinator) -> list[str]:
        found = []
        for src in range(group.world_size):
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
            got = group.broadcast_tensor_dict(sent if src == group.rank_in_group else None, src)
            found += [f"from rank {src}: {each}" for each in tensor_dict_differences(got, sent)]
            found += [
                f"{key} was changed by the call"
                for key, each in guarded.items()
                if not (each.values_intact() and each.canaries_intact())
            ]
        return found

    assert coordinator_run(body, world_size=world_size) == [[]] * world_size


@pytest.mark.vdist_world_size(min=2)
@pytest.mark.vdist_requirement("VD-TD-014")
def test_tensors_in_nested_dictionaries_are_broadcast(
    coordinator_run: CoordinatorRun, world_size: int
) -> None:
    """Tensors in dictionaries inside the dictionary arrive, on CPU and device."""

    def body(group: Coordinator) -> list[str]:
        def made_by(src: int) -> dict[str, Any]:
            inner = tensor_dict_input([torch.bfloat16], rank=src, seed=1, device=group.device)
            return {"outer": inner, "first": torch.full((3,), src), "deep": {"deeper": {"deepest": inner}}}

        found = []
        for src in range(group.world_size):
            got = group.broadcast_tensor_dict(made_by(src) if src == group.rank_in_group else None, src)
            found += [f"from rank {src}: {each}" for each in tensor_dict_differences(got, made_by(src))]
        return found

    assert coordinator_run(body, world_size=world_size) == [[]] * world_size


@pytest.mark.vdist_world_size(min=4, max=4)
@pytest.mark.vdist_requirement("VD-TD-006")
def test_sources_are_ranks_within_the_group(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """In each of two groups at once, the source is named by its rank within the group."""

    def body(group: Coordinator) -> list[int]:
        own = {"global rank": torch.full((5,), group.rank, device=group.device)}
        received = [
            group.broadcast_tensor_dict(own if src == group.rank_in_group else None, src) for src in (0, 1)
        ]
        return [int(each["global rank"].sum()) for each in received if each is not None]

    results = coordinator_run(body, world_size=world_size, group_ranks=ROWS)

    assert results == [[0, 5]] * 2 + [[10, 15]] * 2


@pytest.mark.vdist_world_size(max=1)
@pytest.mark.vdist_requirement("VD-TD-013")
def test_a_group_of_one_rank_gets_its_own_dictionary(
    coordinator_run: CoordinatorRun, world_size: int
) -> None:
    """Broadcasting in a group of one rank returns the dictionary."""

    def body(group: Coordinator) -> list[str]:
        sent = [tensor_dict_input([torch.float32], rank=0, seed=1, device=group.device), {}]
        return [
            difference
            for each in sent
            for difference in tensor_dict_differences(group.broadcast_tensor_dict(dict(each), src=0), each)
        ]

    assert coordinator_run(body, world_size=world_size) == [[]]


def _on(device: torch.device, tensor_dict: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value.to(device) if isinstance(value, torch.Tensor) else value
        for key, value in tensor_dict.items()
    }
