"""Small transformers, dense and with experts, spread over ranks: what the examples for torchrun run.

They use coordinators by the methods of `ParallelGroup` alone, so they run on any implementation's.
"""

from __future__ import annotations

from .config import DENSE, MIXTURE, ModelConfig, prompts
from .environment import parallel_environment
from .examples import differences, main
from .generation import generate
from .layouts import Layout, ParallelGroup, ParallelGroups, groups_of, layouts_for
from .single import Reference, reference_generation
from .stage import Stage
from .verification import agree, layout_differences, parameter_differences

__all__ = [
    "DENSE",
    "MIXTURE",
    "Layout",
    "ModelConfig",
    "ParallelGroup",
    "ParallelGroups",
    "Reference",
    "Stage",
    "agree",
    "differences",
    "generate",
    "groups_of",
    "layout_differences",
    "layouts_for",
    "main",
    "parallel_environment",
    "parameter_differences",
    "prompts",
    "reference_generation",
]
