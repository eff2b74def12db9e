from __future__ import annotations

import contextlib
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch.distributed as dist

from pytest_vdist import DistributedRun, init_settings
from pytest_vdist.implementations.reference import ReferenceImplementation
from pytest_vdist.reference_impl import environment, new_groups
from pytest_vdist.reference_impl.subgroups import validate_group_ranks


@pytest.mark.parametrize("group_ranks", [[[0, 1, 2, 3]], [[1, 0], [3, 2]], [[2]], [[0, 2], [3]]])
def test_disjoint_groups_of_the_world_are_taken_in_any_order(group_ranks: list[list[int]]) -> None:
    validate_group_ranks(group_ranks, 4)


@pytest.mark.parametrize(
    ("group_ranks", "text"),
    [
        ([], "group_ranks is empty"),
        ([[0, 1], []], "has an empty group"),
        ([[0, 1, 0]], r"names rank\(s\) \[0\] twice in one group"),
        ([[0, 1], [1, 2]], r"puts rank\(s\) \[1\] in several groups"),
        ([[0, 4]], r"names rank\(s\) \[4\], and the world has 0 to 3"),
        ([[0, -1]], r"names rank\(s\) \[-1\], and the world has 0 to 3"),
    ],
)
def test_wrong_groups_are_refused_saying_what_is_wrong(group_ranks: list[list[int]], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        validate_group_ranks(group_ranks, 4)


@pytest.mark.parametrize("kind", ["coordinator", "sibling"])
def test_groups_are_made_when_all_members_have_made_them(
    distributed_run: DistributedRun, tmp_path: Path, kind: str
) -> None:
    """A rank that is earlier could destroy them while the others still connect, who would fail."""

    def body() -> bool:
        implementation = ReferenceImplementation()
        store: Any = dist.FileStore(f"{tmp_path}/store", -1)  # type: ignore[attr-defined]
        implementation.init(init_settings(f"file://{tmp_path}/world"))
        group = environment.create_group([[0, 1]])
        make, was_early = new_groups._make, []

        def make_and_be_late(*arguments: Any) -> Any:
            made = make(*arguments)
            with contextlib.suppress(RuntimeError):
                store.wait(["rank 0 has returned"], timedelta(seconds=0.3))
                was_early.append(True)
            return made

        with mock.patch.object(new_groups, "_make", make if group.rank == 0 else make_and_be_late):
            if kind == "sibling":
                group.make_sibling_device_group()
            else:
                # The communicator of the CPU waits for all members anyway, to agree about shared memory.
                environment.create_group([[0, 1]], use_device_communicator=False)
        if group.rank == 0:
            store.set("rank 0 has returned", "")
        implementation.destroy()
        return bool(was_early)

    assert distributed_run(body, world_size=2, init_process_group=False) == [False, False]
