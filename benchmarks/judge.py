"""How many wrong sums each way of checking sums notices, and whether it clears right ones.

python benchmarks/judge.py [--world-sizes 2,4,8] [--elements 4096] [--seeds 7,8,9]

Sums of all ranks are simulated with one defect each and shown to four checks: one as in torch's distributed
tests (the same number everywhere, assert_close), one as in nccl-tests (random integers with one exponent,
mixed signs, equal bits), one as in the OSU benchmarks (numbers by position, alike on all ranks, distance
below one), and the judge of this project, to which an fp32 accumulator is declared. A defect that leaves
every sum as it was, under all inputs used, does nothing at that world size and is left out. An exact sum of
fp32 that is cut off, not rounded, is as near as that accumulator promises: no judge of values can object.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from pytest_vdist.judge import (
    all_reduce,
    assert_bounded,
    assert_exact,
    assert_same_on_all_ranks,
    bounded_input,
    exact_sum_input,
    observe,
    one_hot_input,
)

Tensors = list[torch.Tensor]
Sum = Callable[[Tensors], Tensors]
FORMATS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PRECISION = {torch.float32: 24, torch.bfloat16: 8, torch.float16: 11}
# As wide as the result for fp32, wider for the others.
ACCUMULATOR = torch.float32


def summed(inputs: Sequence[torch.Tensor], accumulator: torch.dtype = ACCUMULATOR) -> torch.Tensor:
    """Add in the order of the ranks, each partial sum rounded to the accumulator, and round at the end."""
    total = inputs[0].to(accumulator)
    for each in inputs[1:]:
        total = (total.double() + each.double()).to(accumulator)
    return total.to(inputs[0].dtype)


def right(inputs: Tensors) -> Tensors:
    return [summed(inputs)] * len(inputs)


def drops_a_rank(inputs: Tensors) -> Tensors:
    return [summed(inputs[:-1])] * len(inputs)


def drops_a_rank_in_the_last_elements(inputs: Tensors) -> Tensors:
    total = summed(inputs).clone()
    total[-3:] = summed(inputs[1:])[-3:]
    return [total] * len(inputs)


def counts_a_rank_twice(inputs: Tensors) -> Tensors:
    return [summed([*inputs, inputs[0]])] * len(inputs)


def keeps_one_stale_element(inputs: Tensors) -> Tensors:
    total = summed(inputs).clone()
    total[100] = inputs[0][100]
    return [total] * len(inputs)


def swaps_two_chunks(inputs: Tensors) -> Tensors:
    first, second, *rest = summed(inputs).chunk(8)
    return [torch.cat([second, first, *rest])] * len(inputs)


def flips_one_bit_of_one_rank(inputs: Tensors) -> Tensors:
    sent = inputs[0].clone()
    sent.view(torch.uint8)[77 * sent.element_size()] ^= 1
    return right([sent, *inputs[1:]])


def sends_fp8(inputs: Tensors) -> Tensors:
    return right([each.to(torch.float8_e4m3fn).to(each.dtype) for each in inputs])


def rounds_at_every_hop(inputs: Tensors) -> Tensors:
    narrow = torch.bfloat16 if inputs[0].dtype == torch.float32 else inputs[0].dtype
    return [summed(inputs, narrow)] * len(inputs)


def cuts_off_at_the_end(inputs: Tensors) -> Tensors:
    exact = summed([each.double() for each in inputs], torch.float64)
    rounded = exact.to(inputs[0].dtype)
    integer = torch.int32 if rounded.element_size() == 4 else torch.int16
    towards_zero = (rounded.view(integer) - 1).view(rounded.dtype)
    return [torch.where(rounded.double().abs() > exact.abs(), towards_zero, rounded)] * len(inputs)


def scales_before_the_sum(inputs: Tensors) -> Tensors:
    count = len(inputs)
    return [summed([each / (count + 1) for each in inputs]) * (count + 1)] * count


def adds_in_another_order_on_one_rank(inputs: Tensors) -> Tensors:
    native = inputs[0].dtype
    return [*[summed(inputs, native)] * (len(inputs) - 1), summed(inputs[::-1], native)]


def leaves_the_last_element_on_one_rank(inputs: Tensors) -> Tensors:
    total = summed(inputs)
    partial = total.clone()
    partial[-1] = inputs[-1][-1]
    return [*[total] * (len(inputs) - 1), partial]


DEFECTS: list[Sum] = [
    drops_a_rank,
    drops_a_rank_in_the_last_elements,
    counts_a_rank_twice,
    keeps_one_stale_element,
    swaps_two_chunks,
    flips_one_bit_of_one_rank,
    sends_fp8,
    rounds_at_every_hop,
    cuts_off_at_the_end,
    scales_before_the_sum,
    adds_in_another_order_on_one_rank,
    leaves_the_last_element_on_one_rank,
]


@dataclass(frozen=True)
class Setting:
    """What sums are made of."""

    world_size: int
    dtype: torch.dtype
    elements: int
    seed: int

    def ranks(self) -> range:
        return range(self.world_size)


def constant_inputs(setting: Setting) -> Tensors:
    """One number for each rank, in every element."""
    return [torch.full((setting.elements,), rank + 1.0).to(setting.dtype) for rank in setting.ranks()]


def integer_inputs(setting: Setting) -> Tensors:
    """Random integers of mixed signs, whose magnitudes add up to at most 2^p at each position."""
    generator = torch.Generator().manual_seed(setting.seed)
    share = max(2, 2 ** PRECISION[setting.dtype] // setting.world_size)
    shape = (setting.world_size, setting.elements)
    whole = torch.randint(0, share + 1, shape, generator=generator)
    signs = torch.randint(0, 2, shape, generator=generator) * 2 - 1
    return list((whole * signs).double().mul(2.0**-4).to(setting.dtype))


def positional_inputs(setting: Setting) -> Tensors:
    """Numbers from 1 to 100 by position, alike on all ranks."""
    return [(torch.arange(setting.elements) % 100 + 1).to(setting.dtype) for _ in setting.ranks()]


def as_torch_tests(implementation: Sum, setting: Setting) -> bool:
    """Compare by torch.testing.assert_close with its own tolerances."""
    inputs = constant_inputs(setting)
    wanted = torch.stack(inputs).double().sum(0).to(setting.dtype)
    return all(_close(got, wanted) for got in implementation(inputs))


def _close(got: torch.Tensor, wanted: torch.Tensor) -> bool:
    try:
        torch.testing.assert_close(got, wanted)
    except AssertionError:
        return False
    return True


def as_nccl_tests(implementation: Sum, setting: Setting) -> bool:
    """Compare all bits where every order of additions gives the same sum."""
    inputs = integer_inputs(setting)
    wanted = torch.stack(inputs).double().sum(0).to(setting.dtype)
    return all(torch.equal(got, wanted) for got in implementation(inputs))


def as_osu_benchmarks(implementation: Sum, setting: Setting) -> bool:
    """Compare whole parts of distances: below one passes."""
    inputs = positional_inputs(setting)
    wanted = torch.stack(inputs).double().sum(0)
    return all(bool(((got.double() - wanted).abs() < 1).all()) for got in implementation(inputs))


def as_this_judge(implementation: Sum, setting: Setting) -> bool:
    """Ask the judge: exact sums, one rank at a time, bounded sums, and the same bits on all ranks."""
    try:
        _judge(implementation, setting)
    except AssertionError:
        return False
    return True


def _judge(implementation: Sum, setting: Setting) -> None:
    for inputs in (exact_inputs(setting), *(hot_inputs(setting, hot) for hot in setting.ranks())):
        seen = [observe(output) for output in implementation(inputs)]
        assert_exact(seen, list(all_reduce(inputs)), call="all_reduce()", zeros_equal=True)
        assert_same_on_all_ranks(seen, call="all_reduce()")
    inputs = rounding_inputs(setting)
    seen = [observe(output) for output in implementation(inputs)]
    assert_bounded(seen, inputs, accumulate="fp32", call="all_reduce()")
    assert_same_on_all_ranks(seen, call="all_reduce()")


def exact_inputs(setting: Setting) -> Tensors:
    shape, size = (setting.elements,), setting.world_size
    return [
        exact_sum_input(shape, setting.dtype, rank=rank, world_size=size, seed=setting.seed)
        for rank in setting.ranks()
    ]


def hot_inputs(setting: Setting, hot: int) -> Tensors:
    shape, size = (setting.elements,), setting.world_size
    return [
        one_hot_input(shape, setting.dtype, rank=rank, world_size=size, seed=setting.seed, hot_rank=hot)
        for rank in setting.ranks()
    ]


def rounding_inputs(setting: Setting) -> Tensors:
    shape, size = (setting.elements,), setting.world_size
    return [
        bounded_input(shape, setting.dtype, rank=rank, world_size=size, seed=setting.seed)
        for rank in setting.ranks()
    ]


CHECKS: dict[str, Callable[[Sum, Setting], bool]] = {
    "assert_close": as_torch_tests,
    "nccl-tests": as_nccl_tests,
    "OSU": as_osu_benchmarks,
    "judge": as_this_judge,
}


def does_something(defect: Sum, setting: Setting) -> bool:
    """Tell whether the defect changes any sum of any of the inputs."""
    all_inputs = [
        constant_inputs(setting),
        integer_inputs(setting),
        positional_inputs(setting),
        exact_inputs(setting),
        rounding_inputs(setting),
        *(hot_inputs(setting, hot) for hot in setting.ranks()),
    ]
    return any(
        not torch.equal(got, want)
        for inputs in all_inputs
        for got, want in zip(defect(inputs), right(inputs), strict=True)
    )


def notices(check: Callable[[Sum, Setting], bool], defect: Sum, settings: Sequence[Setting]) -> bool:
    """Tell whether the check fails with every seed."""
    return not any(check(defect, setting) for setting in settings)


def measure(settings: Sequence[Setting]) -> tuple[list[str], dict[str, list[str]], list[str]]:
    """Return the defects that do something, which each check notices, and checks that reject right sums."""
    alive = [defect for defect in DEFECTS if any(does_something(defect, setting) for setting in settings)]
    noticed = {
        name: [defect.__name__ for defect in alive if notices(check, defect, settings)]
        for name, check in CHECKS.items()
    }
    false_alarms = [name for name, check in CHECKS.items() if not all(check(right, s) for s in settings)]
    return [defect.__name__ for defect in alive], noticed, false_alarms


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--world-sizes", type=numbers, default=[2, 4, 8])
    parser.add_argument("--elements", type=int, default=4096)
    parser.add_argument("--seeds", type=numbers, default=[7, 8, 9])
    chosen = parser.parse_args()
    heads = "  ".join(f"{name:>12}" for name in CHECKS)
    print(f"{'dtype':6} {'ranks':>5}  {heads}  missed by the judge")
    for name, dtype in FORMATS.items():
        for size in chosen.world_sizes:
            settings = [Setting(size, dtype, chosen.elements, seed) for seed in chosen.seeds]
            alive, noticed, false_alarms = measure(settings)
            cells = [f"{len(found)}/{len(alive)}" for found in noticed.values()]
            missed = ", ".join(sorted(set(alive) - set(noticed["judge"]))) or "none"
            print(f"{name:6} {size:5}  " + "  ".join(f"{cell:>12}" for cell in cells) + f"  {missed}")
            for rejecting in false_alarms:
                print(f"    {rejecting} rejects right sums")


if __name__ == "__main__":
    main()
