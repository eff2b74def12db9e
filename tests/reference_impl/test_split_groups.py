"""What needs no second rank and no accelerator: what torch can do, what to make, and the refusals."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from pytest_vdist.reference_impl import _compat, split_groups
from pytest_vdist.reference_impl.environment import (
    destroy_distributed_environment,
    get_world_group,
    init_distributed_environment,
)
from pytest_vdist.reference_impl.split_groups import SplitGroups, default_backend, torch_obstacle

Start = Callable[..., None]
DEVICE = torch.device("cuda", 0)
BY_NEW_GROUP = (
    "make subgroups by new_group instead (split_group=False, or VDIST_DISTRIBUTED_USE_SPLIT_GROUP=0 in the "
    "environment)"
)
WHAT_TO_PASS = (
    "make it by torch.distributed.init_process_group('cpu:gloo,cuda:nccl', "
    f"device_id=torch.device('cuda:0')), or {BY_NEW_GROUP}"
)


@pytest.fixture(autouse=True)
def _clean_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    monkeypatch.delenv("VDIST_DISTRIBUTED_USE_SPLIT_GROUP", raising=False)
    yield
    destroy_distributed_environment()
    if dist.is_initialized():
        dist.destroy_process_group()


@pytest.fixture
def unable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torch refuse to split on the CPU, as it does up to 2.14."""
    monkeypatch.setattr(_compat, "trial_of_splitting_on_cpu", lambda: "no device")


@pytest.fixture
def start(tmp_path: Path) -> Start:
    def start(**settings: Any) -> None:
        init_distributed_environment(1, 0, f"file://{tmp_path}/store", 0, device_type="cpu", **settings)

    return start


@pytest.fixture
def default_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a default group of the CPU alone, which passes for one of an accelerator that torch can split."""
    monkeypatch.setattr(split_groups, "torch_obstacle", lambda _: None)
    dist.init_process_group("cpu:gloo", init_method=f"file://{tmp_path}/default", rank=0, world_size=1)


@pytest.mark.parametrize(
    ("device_type", "backend", "expected"),
    [
        ("cuda", None, "cpu:gloo,cuda:nccl"),
        ("xpu", None, "cpu:gloo,xpu:xccl"),
        ("cpu", None, "cpu:gloo"),
        ("cuda", "mylib", "cpu:gloo,cuda:mylib"),
        ("cuda", "cpu:mpi,cuda:mylib", "cpu:mpi,cuda:mylib"),
    ],
)
def test_the_default_group_has_a_backend_for_the_cpu_and_one_for_the_device(
    device_type: str, backend: str | None, expected: str
) -> None:
    assert default_backend(device_type, backend) == expected


def test_torch_splits_on_the_cpu_exactly_where_a_trial_succeeds() -> None:
    refusal = _compat.trial_of_splitting_on_cpu()
    assert not dist.is_initialized()
    obstacle = torch_obstacle("cpu")
    assert obstacle is None if refusal is None else refusal in str(obstacle)


@pytest.mark.usefixtures("unable")
def test_what_torch_cannot_split_is_told_with_its_version_and_the_way_out() -> None:
    assert torch_obstacle("cpu") == (
        f"split_group of torch {torch.__version__} does not work on 'cpu': no device (torch 2.15 is the "
        f"first that splits groups without an accelerator); {BY_NEW_GROUP}"
    )


def test_a_device_that_is_not_the_accelerator_of_torch_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_compat, "split_group_takes_backend", lambda: True)
    monkeypatch.setattr(split_groups, "torch_device_type", lambda: "cuda")
    assert torch_obstacle("cuda") is None
    assert "splits the groups of torch's accelerator, which is 'cuda' here" in str(torch_obstacle("xpu"))


def test_a_torch_whose_split_group_takes_no_backend_splits_cuda_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_compat, "split_group_takes_backend", lambda: False)
    assert torch_obstacle("cuda") is None
    for device_type in ("cpu", "xpu"):
        assert "it splits CUDA groups only; torch 2.13 is the first" in str(torch_obstacle(device_type))


@pytest.mark.usefixtures("unable")
def test_initialisation_is_refused_before_there_is_a_default_group(start: Start) -> None:
    with pytest.raises(RuntimeError, match=r"split_group of torch .* does not work on 'cpu': no device"):
        start(split_group=True)
    assert not dist.is_initialized()


@pytest.mark.usefixtures("unable")
def test_the_environment_asks_for_split_groups(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VDIST_DISTRIBUTED_USE_SPLIT_GROUP", "1")
    with pytest.raises(RuntimeError, match="does not work on 'cpu'"):
        start()


@pytest.mark.usefixtures("unable")
def test_an_argument_goes_before_the_environment(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VDIST_DISTRIBUTED_USE_SPLIT_GROUP", "1")
    start(split_group=False)
    assert not get_world_group().split_group


@pytest.mark.parametrize("text", ["", "yes", "on", "2"])
def test_a_variable_that_is_not_0_or_1_is_refused(
    start: Start, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("VDIST_DISTRIBUTED_USE_SPLIT_GROUP", text)
    with pytest.raises(ValueError, match=f"VDIST_DISTRIBUTED_USE_SPLIT_GROUP='{text}' is not 0 or 1; set 1"):
        start()


@pytest.mark.usefixtures("default_group")
def test_a_default_group_without_device_id_is_refused_with_what_to_pass() -> None:
    assert SplitGroups(DEVICE, None).obstacle() == (
        "the default process group cannot be split: it was made without device_id, and this rank's device is "
        f"cuda:0; {WHAT_TO_PASS}"
    )


@pytest.mark.usefixtures("default_group")
@pytest.mark.parametrize(
    ("ability", "answer", "reason"),
    [
        (
            "bound_device",
            lambda _: torch.device("cuda", 1),
            "it is bound to cuda:1 by its device_id, and this rank's device is cuda:0",
        ),
        (
            "backend_name",
            lambda _, device: None if device.type == "cpu" else "nccl",
            "it needs the backend 'gloo' for the CPU and has none",
        ),
        (
            "backend_name",
            lambda _, device: "mpi" if device.type == "cpu" else "nccl",
            "it needs the backend 'gloo' for the CPU and has 'mpi'",
        ),
        (
            "backend_name",
            lambda _, device: "gloo" if device.type == "cpu" else None,
            "it has no backend for 'cuda'",
        ),
        (
            "supports_splitting",
            lambda *_: False,
            "its backend 'gloo' for 'cuda' does not support splitting",
        ),
        (
            "configured_backends",
            lambda _: {"cpu": "gloo", "cuda": "other"},
            "its backend for 'cuda' is 'other', and 'nccl' was asked for",
        ),
    ],
)
def test_a_default_group_that_cannot_be_split_is_refused_with_what_to_pass(
    monkeypatch: pytest.MonkeyPatch, ability: str, answer: Callable[..., Any], reason: str
) -> None:
    right: dict[str, Callable[..., Any]] = {
        "bound_device": lambda _: DEVICE,
        "backend_name": lambda *_: "gloo",
        "supports_splitting": lambda *_: True,
        "configured_backends": lambda _: {"cpu": "gloo", "cuda": "nccl"},
    }
    for name, function in (right | {ability: answer}).items():
        monkeypatch.setattr(_compat, name, function)
    assert SplitGroups(DEVICE, "nccl").obstacle() == (
        f"the default process group cannot be split: {reason}; {WHAT_TO_PASS}"
    )


def test_groups_are_named_by_key_and_first_rank_while_they_are_split() -> None:
    before = dist.distributed_c10d._process_group_name
    with _compat._named("tp:0:device:1"):
        name = dist.distributed_c10d._process_group_name([2, 3], use_hashed_name=True)
    assert name == "tp:0:device:1:2"
    assert dist.distributed_c10d._process_group_name is before
