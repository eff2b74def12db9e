"""The sizes of a model, and its weights: the same in every process, whatever part of them it holds."""

from __future__ import annotations

import functools
import math
import zlib
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class ModelConfig:
    """A transformer that generates tokens 0 to `vocabulary` - 1, in sequences of at most `longest`.

    Without `experts` its layers are dense; otherwise each token goes to `experts_per_token` of them.
    """

    name: str
    vocabulary: int = 61
    hidden: int = 32
    heads: int = 4
    layers: int = 3
    intermediate: int = 64
    experts: int = 0
    experts_per_token: int = 2
    longest: int = 24
    seed: int = 1

    @property
    def head_size(self) -> int:
        return self.hidden // self.heads


DENSE = ModelConfig("dense")
MIXTURE = ModelConfig("mixture of experts", experts=8, intermediate=32, seed=3)


@functools.cache
def full_weight(config: ModelConfig, name: str, *shape: int) -> torch.Tensor:
    """Return the whole weight of that name (fp32, on the CPU), which depends on seed, name and shape alone.

    Its last dimension is the one that is summed over; a product with it keeps the size of values. It is made
    once, so nobody may write to it.
    """
    seed = zlib.crc32(f"{config.seed}/{name}".encode())
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return drawn / math.sqrt(shape[-1])


def prompts(config: ModelConfig, count: int, length: int) -> torch.Tensor:
    """Return `count` prompts of `length` tokens each, int64 on the CPU."""
    generator = torch.Generator().manual_seed(config.seed + 1)
    return torch.randint(config.vocabulary, (count, length), generator=generator)


def rotations(config: ModelConfig) -> tuple[torch.Tensor, torch.Tensor]:
    """Return cosines and sines of rotary position embeddings, fp32 of shape (longest, head_size / 2).

    J. Su et al., "RoFormer", 2021, https://arxiv.org/abs/2104.09864.
    """
    half = config.head_size // 2
    frequencies = 10000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
    angles = torch.arange(config.longest, dtype=torch.float64)[:, None] * frequencies
    return angles.cos().float(), angles.sin().float()
