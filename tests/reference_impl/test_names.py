from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from pytest_vdist.reference_impl import names


class Group:
    device = torch.device("cpu")

    def __init__(self, unique_name: str) -> None:
        self.unique_name = unique_name

    def destroy(self) -> None:
        names.unregister(self.unique_name)


@pytest.fixture(autouse=True)
def _no_names() -> Iterator[None]:
    names.reset()
    yield
    for group in names.living():
        group.destroy()
    names.reset()


def test_each_name_counts_for_itself() -> None:
    assert [names.next_name(name) for name in ("tp", "pp", "tp")] == ["tp:0", "pp:0", "tp:1"]


def test_a_destroyed_group_frees_no_number() -> None:
    group = Group(names.next_name("tp"))
    names.register(group)
    group.destroy()
    assert names.next_name("tp") == "tp:1"


def test_a_living_group_is_found_by_name() -> None:
    group = Group("tp:0")
    names.register(group)
    assert names.find("tp:0") is group
    assert names.living() == [group]


def test_a_destroyed_group_is_not_found() -> None:
    group = Group("tp:0")
    names.register(group)
    group.destroy()
    with pytest.raises(ValueError, match="no group 'tp:0' in this process: it was destroyed or never made"):
        names.find("tp:0")


def test_a_forgotten_group_is_kept_in_its_place_until_it_is_destroyed() -> None:
    for name in ("tp:0", "tp:1", "tp:2"):
        names.register(Group(name))
    names.living()[1].destroy()
    assert [group.unique_name for group in names.living()] == ["tp:0", "tp:2"]
