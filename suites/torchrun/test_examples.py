"""The example scripts as processes that torchrun starts, as a user starts them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_vdist import TorchrunRun

HERE = Path(__file__).parent
DEADLINE = 300.0


def run(torchrun_run: TorchrunRun, script: str, *, world_size: int, mode: str, split_group: bool) -> str:
    """Start an example; compiled, which takes its time, in one layout. Return what rank 0 sums up."""
    layout = [] if mode == "eager" else ["--tensor", "2"]
    outputs = torchrun_run(
        HERE / script,
        "--compile",
        mode,
        *layout,
        nproc_per_node=world_size,
        timeout=DEADLINE,
        split_group=split_group,
    )
    assert [output.stdout for output in outputs[1:]] == [""] * (world_size - 1)
    return outputs[0].stdout


@pytest.mark.vdist_world_size(min=2, max=2)
@pytest.mark.vdist_requirement("VD-MOD-001", "VD-MOD-003")
def test_the_dense_example_runs_under_torchrun(
    torchrun_run: TorchrunRun, compile_mode: str, split_group: bool, world_size: int
) -> None:
    """Started by torchrun, with a default process group of torch's choice, the dense model is right."""
    said = run(torchrun_run, "dense.py", world_size=world_size, mode=compile_mode, split_group=split_group)
    assert said.startswith("dense on 2 ranks of ")
    assert " tokens as in one process in " in said


@pytest.mark.vdist_world_size(min=2, max=4, multiple_of=2, largest_only=True)
@pytest.mark.vdist_requirement("VD-MOD-002", "VD-MOD-003")
def test_the_example_with_experts_runs_under_torchrun(
    torchrun_run: TorchrunRun, compile_mode: str, split_group: bool, world_size: int
) -> None:
    """Started by torchrun, with a default process group of torch's choice, experts are right as well."""
    said = run(torchrun_run, "moe.py", world_size=world_size, mode=compile_mode, split_group=split_group)
    assert said.startswith(f"mixture of experts on {world_size} ranks of ")
    assert " tokens as in one process in " in said
