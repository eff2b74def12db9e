"""The reference with exactly one thing wrong in each: what the suites must notice.

A mutant enters as any implementation under test does:
`pytest --vdist-backend=cpu --vdist-impl=pytest_vdist.mutation.implementations:NAME`.
"""

from __future__ import annotations

from . import (
    arguments,
    barriers,
    broadcasts,
    collectives,
    compiled,
    contexts,
    dimensions,
    groups,
    life_cycle,
    models,
    objects,
    one_rank,
    point_to_point,
    process_groups,
    ragged,
    sends,
    shared_memory,
    signatures,
    splitting,
    tensor_dicts,
    timeouts,
    values,
)
from .registry import MUTANTS, Mutant, MutantDoesNotApplyError, apply

__all__ = [
    "MUTANTS",
    "Mutant",
    "MutantDoesNotApplyError",
    "apply",
    "arguments",
    "barriers",
    "broadcasts",
    "collectives",
    "compiled",
    "contexts",
    "dimensions",
    "groups",
    "life_cycle",
    "models",
    "objects",
    "one_rank",
    "point_to_point",
    "process_groups",
    "ragged",
    "sends",
    "shared_memory",
    "signatures",
    "splitting",
    "tensor_dicts",
    "timeouts",
    "values",
]
