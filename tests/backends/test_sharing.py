"""Where ranks that outnumber devices are placed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_vdist.backends.cpu import BACKEND
from pytest_vdist.backends.cuda import BACKEND as CUDA
from pytest_vdist.backends.sharing import (
    Place,
    node_size,
    place_of,
    ranks_on_one_device,
    sharing_environment,
    way_out,
)
from pytest_vdist.backends.xpu import BACKEND as XPU


@pytest.mark.parametrize("devices", range(1, 6))
@pytest.mark.parametrize("world_size", range(1, 9))
def test_ranks_of_a_node_have_a_device_each_and_nodes_are_filled_in_order(
    world_size: int, devices: int
) -> None:
    places = [place_of(rank, world_size, devices) for rank in range(world_size)]
    by_node: dict[int, list[Place]] = {}
    for place in places:
        by_node.setdefault(place.node, []).append(place)
    assert [place.node for place in places] == sorted(place.node for place in places)
    for node, own in by_node.items():
        assert [place.local_rank for place in own] == list(range(len(own)))
        assert {place.local_world_size for place in own} == {len(own)}
        assert len(own) == devices or node == max(by_node)
    most = max([place.local_rank for place in places].count(device) for device in range(devices))
    assert most == ranks_on_one_device(world_size, devices)


@pytest.mark.parametrize(
    ("ranks", "devices", "size"), [(4, 1, 1), (4, 2, 2), (3, 2, 1), (4, 3, 2), (6, 4, 3), (2, 8, 2)]
)
def test_equal_nodes_are_as_large_as_the_devices_allow(ranks: int, devices: int, size: int) -> None:
    assert node_size(ranks, devices) == size


def test_the_way_out_is_told_where_there_is_one() -> None:
    assert way_out(CUDA, 4, 1) == "--vdist-ranks-per-device=4"
    assert way_out(CUDA, 3, 2) == "--vdist-ranks-per-device=2"
    assert [way_out(CUDA, 17, 1), way_out(CUDA, 2, 0), way_out(CUDA, 2, 2), way_out(XPU, 2, 1)] == [""] * 4


def test_what_ranks_need_names_their_node() -> None:
    assert sharing_environment(CUDA, 3)["NCCL_HOSTID"] == "vdist-node-3"
    assert sharing_environment(replace(BACKEND, sharing_environment={"A": "x"}), 1) == {"A": "x"}
    assert sharing_environment(BACKEND, 1) == {}
