"""Models on the coordinators of the implementation under test, against the same models in one process.

The models are the reference's, which the example scripts run as well; they talk by the coordinators alone.
"""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch

from pytest_vdist import Capabilities, Coordinator, CoordinatorRun, compiled, coordinator
from pytest_vdist.reference_impl.models import (
    DENSE,
    MIXTURE,
    Layout,
    ModelConfig,
    Reference,
    Stage,
    differences,
    groups_of,
    layouts_for,
    prompts,
    reference_generation,
)

pytestmark = [
    pytest.mark.vdist_world_size(min=2, max=4, multiple_of=2),
    pytest.mark.filterwarnings("default"),
]
PROMPTS, PROMPT_LENGTH, NEW_TOKENS = 5, 6, 6
NEEDED = ("all_gatherv", "reduce_scatterv", "broadcast_tensor_dict", "send_tensor_dict", "recv_tensor_dict")
NOT_BY_TORCH = ("eager", "cudagraph")
COMPILING = 300.0  # seconds; inductor takes 40 for the first layout where two ranks have two cores


@functools.cache
def in_one_process(config: ModelConfig) -> Reference:
    """Generate in this process, and make sure that rounding cannot change a token."""
    made = reference_generation(config, prompts(config, PROMPTS, PROMPT_LENGTH), NEW_TOKENS)
    made.require_sure()
    return made


def layouts_to_run(config: ModelConfig, world_size: int, mode: str) -> list[Layout]:
    """Return all layouts; compiled, which takes its time, the last one that splits weights between pairs."""
    layouts = layouts_for(config, world_size)
    return layouts if mode == "eager" else [layout for layout in layouts if layout.tensor == 2][-1:]


@pytest.fixture
def need_operations(capabilities: Capabilities) -> None:
    """Declare a test not run where the implementation declares that it lacks what the models use."""
    missing = [name for name in NEEDED if not capabilities.supports(name)]
    if missing:
        pytest.skip(f"not run: the implementation declares that it lacks {', '.join(missing)}")


def run(coordinator_run: CoordinatorRun, config: ModelConfig, world_size: int, mode: str) -> None:
    """Generate in every layout, on one dispatch, and compare every rank's tokens and weights."""
    given, expected = prompts(config, PROMPTS, PROMPT_LENGTH), in_one_process(config).tokens
    layouts = layouts_to_run(config, world_size, mode)

    def body(group: Coordinator) -> list[str]:
        wrong = []
        for layout in layouts:
            groups: Any = groups_of(coordinator, layout, group.world_size)
            stage = Stage(config, layout, groups, len(given))
            found = differences(stage, given, expected, compiled(stage.forward, mode))
            wrong += [f"{layout}: {each}" for each in found]
            if mode not in NOT_BY_TORCH:
                torch.compiler.reset()
        return wrong

    timeout = None if mode == "eager" else COMPILING
    for rank, wrong in enumerate(coordinator_run(body, world_size=world_size, timeout=timeout)):
        assert wrong == [], f"rank {rank}"


@pytest.mark.usefixtures("need_operations")
@pytest.mark.vdist_requirement("VD-MOD-001", "VD-MOD-003")
def test_a_dense_model_generates_the_tokens_of_one_process(
    coordinator_run: CoordinatorRun, compile_mode: str, world_size: int
) -> None:
    """Weights split by rows, columns and vocabulary, stages in a row and split prompts change no token."""
    run(coordinator_run, DENSE, world_size, compile_mode)


@pytest.mark.usefixtures("need_operations")
@pytest.mark.vdist_requirement("VD-MOD-002", "VD-MOD-003")
def test_a_mixture_of_experts_generates_the_tokens_of_one_process(
    coordinator_run: CoordinatorRun, compile_mode: str, world_size: int
) -> None:
    """Experts that are on other ranks, or split over them, get their tokens and change none that follows."""
    run(coordinator_run, MIXTURE, world_size, compile_mode)
