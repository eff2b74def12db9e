"""Whether what the ranks of a group got is right: inputs, expected results, error bounds and comparison.

Pure functions of torch tensors: no processes, no files, no clock.
"""

from .assertions import assert_bounded, assert_exact, assert_same_on_all_ranks, describe_call
from .bounds import ACCUMULATORS, SumBound, accumulator_roundoff, sum_bound
from .buffers import LAYOUTS, GuardedTensor, aliases, fit_values, guard, layout_fits, poisoned
from .compare import Element, Mismatch, compare_bounded, compare_exact, compare_ranks
from .exact import ExactSum, exact_sum
from .formats import IntegerFormat, NumberFormat, dtype_name, format_of, raw_bytes, same_bits
from .inputs import bounded_input, exact_sum_input, movement_input, one_hot_input
from .observation import Observation, observe
from .oracle import (
    all_gather,
    all_gatherv,
    all_reduce,
    broadcast,
    gather,
    reduce_scatter,
    reduce_scatterv,
    scattered,
)
from .probes import Accumulator, SumProbe, tree_text

__all__ = [
    "ACCUMULATORS",
    "LAYOUTS",
    "Accumulator",
    "Element",
    "ExactSum",
    "GuardedTensor",
    "IntegerFormat",
    "Mismatch",
    "NumberFormat",
    "Observation",
    "SumBound",
    "SumProbe",
    "accumulator_roundoff",
    "aliases",
    "all_gather",
    "all_gatherv",
    "all_reduce",
    "assert_bounded",
    "assert_exact",
    "assert_same_on_all_ranks",
    "bounded_input",
    "broadcast",
    "compare_bounded",
    "compare_exact",
    "compare_ranks",
    "describe_call",
    "dtype_name",
    "exact_sum",
    "exact_sum_input",
    "fit_values",
    "format_of",
    "gather",
    "guard",
    "layout_fits",
    "movement_input",
    "observe",
    "one_hot_input",
    "poisoned",
    "raw_bytes",
    "reduce_scatter",
    "reduce_scatterv",
    "same_bits",
    "scattered",
    "sum_bound",
    "tree_text",
]
