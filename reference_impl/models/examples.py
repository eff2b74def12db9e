"""What the examples do: generate tokens in every layout of the ranks, and compare them with one process'."""

from __future__ import annotations

import argparse
import functools
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch

from .config import ModelConfig, prompts
from .environment import groups_for, parallel_environment
from .generation import generate
from .layouts import Layout, ParallelGroup, layouts_for
from .single import Reference, reference_generation
from .stage import Stage
from .verification import agree, layout_differences, parameter_differences

Tensor = torch.Tensor
Compile = Callable[..., Callable[..., Tensor]]
DEVICE_TYPE = "VDIST_DEVICE_TYPE"
PROMPTS, PROMPT_LENGTH, NEW_TOKENS = 5, 6, 6
_COMPILER = "torch._dynamo"


def main(config: ModelConfig, compile_: Compile, arguments: Sequence[str] | None = None) -> int:
    """Run one example on a rank that torchrun started, and return its exit code.

    `compile_(function, mode=...)` compiles. Rank 0 prints a line that sums up, every rank what is wrong.
    """
    asked = _parser(config).parse_args(arguments)
    with parallel_environment(asked.device) as world:
        layouts = _layouts(asked, config, world.world_size)
        given = prompts(config, PROMPTS, PROMPT_LENGTH)
        expected = _expected(world, config, given)
        wrong = [
            f"{layout}, {mode}: {text}"
            for mode in asked.compile.split(",")
            for layout in layouts
            for text in _differences_in(
                layout, config, given, expected, functools.partial(compile_, mode=mode)
            )
        ]
        found = agree(world, wrong)
        if world.rank_in_group == 0:
            what = f"{config.name} on {world.world_size} ranks of {world.device.type}, {asked.compile}"
            print(f"{what}: {_summary(layouts, expected, found)}", flush=True)  # noqa: T201
        for text in wrong:
            print(f"rank {world.rank_in_group}: {text}", file=sys.stderr)  # noqa: T201
    return 1 if any(found) else 0


def differences(stage: Stage, given: Tensor, expected: Tensor, forward: Any = None) -> list[str]:
    """Check plan, weights and tokens of one stage; every rank of the world calls it."""
    wrong = layout_differences(stage, given) + parameter_differences(stage)
    tokens = generate(stage, given, expected.shape[1], forward).cpu()
    wrong += [
        f"prompt {number} continues as {made}, in one process as {right}"
        for number, (made, right) in enumerate(zip(tokens.tolist(), expected.tolist(), strict=True))
        if made != right
    ]
    everyones = agree(stage.groups.world, tokens.tolist())
    others = [rank for rank, other in enumerate(everyones) if other != everyones[0]]
    return wrong + [f"rank {rank} has other tokens than rank 0" for rank in others]


def _differences_in(
    layout: Layout, config: ModelConfig, given: Tensor, expected: Reference, compile_: Callable[..., Any]
) -> list[str]:
    with groups_for(layout) as groups:
        stage = Stage(config, layout, groups, given.shape[0])
        found = differences(stage, given, expected.tokens, compile_(stage.forward))
        if _COMPILER in sys.modules:  # its import takes seconds
            torch.compiler.reset()  # torch counts how often a function is compiled, of whatever stage it is
        return found


def _expected(world: ParallelGroup, config: ModelConfig, given: Tensor) -> Reference:
    """Let rank 0 generate in one process, and tell the others."""
    made = reference_generation(config, given, NEW_TOKENS) if world.rank_in_group == 0 else None
    expected: Reference = world.broadcast_object(made, 0)
    expected.require_sure()
    return expected


def _parser(config: ModelConfig) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=f"Generate tokens by a {config.name} model over the ranks that torchrun starts, and "
        "compare them with those of one process. Without sizes: in every layout of the ranks."
    )
    for name in ("tensor", "pipeline", "data"):
        parser.add_argument(f"--{name}", type=int, metavar="N", help=f"size of the {name} groups")
    if config.experts:
        parser.add_argument(
            "--expert", type=int, metavar="N", help="size of the expert groups: tensor x data, or 1"
        )
    parser.add_argument(
        "--compile", default="eager", metavar="MODE[,MODE]", help="eager, or backends of torch.compile"
    )
    parser.add_argument(
        "--device",
        default=os.environ.get(DEVICE_TYPE),
        metavar="TYPE",
        help=f"cpu, cuda, xpu, ...: by default {DEVICE_TYPE}, or the accelerator, or the CPU",
    )
    return parser


def _layouts(asked: argparse.Namespace, config: ModelConfig, world_size: int) -> list[Layout]:
    sizes = (asked.tensor, asked.pipeline, asked.data, getattr(asked, "expert", None))
    if sizes == (None,) * 4:
        return layouts_for(config, world_size)
    tensor, pipeline = asked.tensor or 1, asked.pipeline or 1
    data = asked.data or max(1, world_size // (tensor * pipeline))
    expert = sizes[3] or 1
    if expert not in {1, tensor * data}:
        raise SystemExit(
            f"--expert {expert}: give tensor x data = {tensor * data}, or 1 to split each expert"
        )
    layout = Layout(tensor, pipeline, data, expert_parallel=expert > 1)
    if layout.ranks != world_size:
        raise SystemExit(f"{layout} is a layout of {layout.ranks} ranks, and torchrun started {world_size}")
    return [layout]


def _summary(layouts: Sequence[Layout], expected: Reference, found: Sequence[Sequence[str]]) -> str:
    where = "; ".join(map(str, layouts))
    if any(found):
        bad = ", ".join(str(rank) for rank, wrong in enumerate(found) if wrong)
        return f"FAILED on rank {bad}, in one of: {where}"
    count, length = expected.tokens.shape
    return (
        f"{count} x {length} tokens as in one process in {len(layouts)} layouts ({where}); every choice "
        f"leads by {expected.margin:.1g} or more, fp32 rounds {expected.rounding:.1g}"
    )
