"""The models and their examples: what they refuse, and what they notice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pytest_vdist.backends.cpu import BACKEND
from pytest_vdist.reference_impl.models import (
    DENSE,
    MIXTURE,
    Layout,
    ModelConfig,
    ParallelGroups,
    Reference,
    Stage,
    generate,
    layouts_for,
    prompts,
    reference_generation,
)
from pytest_vdist.reference_impl.models.layouts import part, parts
from pytest_vdist.torchrun.failures import TorchrunError
from pytest_vdist.torchrun.run import TorchrunRunner

SUITES = Path(__file__).parents[2] / "suites"
WITH_A_MUTANT = """
import runpy, sys
from pytest_vdist.reference_impl import mutants
mutants.apply(sys.argv.pop(1))
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class Alone:
    """A group of one rank."""

    device = torch.device("cpu")
    world_size = 1
    rank_in_group = 0

    def all_reduce(self, input_: torch.Tensor) -> torch.Tensor:
        return input_.clone()

    def all_gather(self, input_: torch.Tensor, dim: int = -1) -> torch.Tensor:
        return input_.clone()

    def all_gatherv(self, input_: torch.Tensor, dim: int, sizes: list[int]) -> torch.Tensor:
        return input_.clone()

    def broadcast_tensor_dict(self, tensor_dict: Any, src: int) -> Any:
        return tensor_dict


def whole(config: ModelConfig) -> Stage:
    alone: Any = Alone()
    return Stage(config, Layout(), ParallelGroups(alone, alone, alone, alone, alone), prompt_count=3)


@pytest.mark.parametrize("config", [DENSE, MIXTURE], ids=lambda config: config.name)
def test_one_rank_with_a_cache_generates_what_whole_passes_in_fp64_do(config: ModelConfig) -> None:
    given = prompts(config, 3, 5)
    expected = reference_generation(config, given, 5)
    expected.require_sure()
    assert torch.equal(generate(whole(config), given, 5), expected.tokens)
    assert len(set(expected.tokens.flatten().tolist())) > 4


def test_logits_are_those_of_another_code_within_what_fp32_rounds() -> None:
    given = prompts(DENSE, 3, 5)
    expected = reference_generation(DENSE, given, 1)
    logits = whole(DENSE)(given, torch.arange(5))
    leads = logits.topk(2, -1).values
    assert 0 < expected.rounding < 1e-5
    assert float((leads[:, 0] - leads[:, 1]).min()) >= expected.margin - 20 * expected.rounding


def test_a_choice_that_is_too_close_is_refused() -> None:
    Reference(torch.zeros(1, 1), margin=1.1e-4, rounding=1e-6).require_sure()
    with pytest.raises(ValueError, match="leads by 9e-05 where fp32 rounds 1e-06: equal tokens would prove"):
        Reference(torch.zeros(1, 1), margin=9e-5, rounding=1e-6).require_sure()


def test_layouts_are_all_that_the_model_allows() -> None:
    assert list(map(str, layouts_for(DENSE, 4))) == [
        "data 4",
        "pipeline 2 x data 2",
        "tensor 2 x data 2",
        "tensor 2 x pipeline 2",
        "tensor 4",
    ]
    assert "tensor 2 x data 2 x expert 4" in map(str, layouts_for(MIXTURE, 4))
    assert all(layout.ranks == 6 for layout in layouts_for(replace(MIXTURE, experts=6), 6))


def test_parts_cover_everything_once() -> None:
    assert parts(5, 4) == [2, 1, 1, 1]
    assert [list(part(5, 4, index)) for index in range(4)] == [[0, 1], [2], [3], [4]]
    assert list(part(1, 2, 1)) == []


@pytest.mark.parametrize(
    ("layout", "config", "error"),
    [
        (Layout(tensor=3), DENSE, "4 heads do not divide by tensor=3"),
        (Layout(pipeline=4), DENSE, "pipeline=4 stages are more than the 3 layers"),
        (Layout(tensor=2, expert_parallel=True), DENSE, "0 experts do not divide by tensor x data = 2 ranks"),
    ],
)
def test_a_layout_that_does_not_fit_is_refused(layout: Layout, config: ModelConfig, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        layout.require(config)


def test_sequences_that_are_too_long_are_refused() -> None:
    with pytest.raises(ValueError, match="20 \\+ 5 tokens are more than the model's longest, 24"):
        generate(whole(DENSE), prompts(DENSE, 3, 20), 5)


def test_an_example_says_on_which_rank_what_differs(tmp_path: Path) -> None:
    script = tmp_path / "with_a_mutant.py"
    script.write_text(WITH_A_MUTANT)
    arguments = ("row_parallel_layers_do_not_add_up", str(SUITES / "torchrun/dense.py"), "--tensor", "2")
    with pytest.raises(
        TorchrunError, match=r"rank [01] of 2 failed: its process exited with code 1"
    ) as failure:
        TorchrunRunner(BACKEND, 2, 120.0)(script, *arguments)
    first, second = failure.value.outputs
    assert first.stdout == "dense on 2 ranks of cpu, eager: FAILED on rank 0, 1, in one of: tensor 2\n"
    assert second.stdout == ""
    assert "rank 0: tensor 2, eager: prompt 0 continues as " in first.stderr
    assert "rank 1: tensor 2, eager: prompt 0 continues as " in second.stderr
