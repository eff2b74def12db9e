"""What a function learns about its rank: settings for a world of its own, and its backend."""

from __future__ import annotations

import pytest

from pytest_vdist import DistributedRun, InitSettings, RanksFailedError, init_settings, process_group_backend


def test_settings_are_those_of_the_rank(distributed_run: DistributedRun) -> None:
    settings = distributed_run(init_settings, "file:///nowhere", world_size=2, init_process_group=False)
    assert settings == [InitSettings(rank, 2, rank, "cpu", "file:///nowhere") for rank in (0, 1)]


def test_the_backend_is_named_by_class_and_name(distributed_run: DistributedRun) -> None:
    assert distributed_run(process_group_backend) == ["ProcessGroupGloo gloo"] * 2


def test_without_a_default_group_there_is_no_backend(distributed_run: DistributedRun) -> None:
    with pytest.raises(
        RanksFailedError, match="there is no default process group in this rank: initialise it"
    ):
        distributed_run(process_group_backend, init_process_group=False)


def test_settings_need_a_rank() -> None:
    with pytest.raises(RuntimeError, match="in a process that is no rank"):
        init_settings("file:///nowhere")
