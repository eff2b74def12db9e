"""Attention over the heads of one tensor-parallel rank, with its keys and values kept between steps."""

from __future__ import annotations

import math

import torch
from torch import nn

from .config import ModelConfig, full_weight, rotations
from .layers import ColumnParallelLinear, RowParallelLinear
from .layouts import ParallelGroup

Tensor = torch.Tensor


class KeyValueCache(nn.Module):
    """Keys and values of all positions so far, of shape (batch, heads of this rank, longest, head size)."""

    keys: Tensor
    values: Tensor

    def __init__(self, shape: tuple[int, int, int, int], device: torch.device) -> None:
        super().__init__()
        self.register_buffer("keys", torch.zeros(shape, device=device), persistent=False)
        self.register_buffer("values", torch.zeros(shape, device=device), persistent=False)

    def write(self, keys: Tensor, values: Tensor, positions: Tensor) -> None:
        """Put what belongs to `positions` in its place."""
        self.keys.index_copy_(2, positions, keys)
        self.values.index_copy_(2, positions, values)


class Attention(nn.Module):
    """Causal attention with rotary positions."""

    cosines: Tensor
    sines: Tensor
    places: Tensor

    def __init__(self, config: ModelConfig, layer: int, batch: int, group: ParallelGroup) -> None:
        super().__init__()
        size = config.hidden
        self.head_size = config.head_size
        self.query, self.key, self.value = (
            ColumnParallelLinear(full_weight(config, f"{layer}.{name}", size, size), group)
            for name in ("query", "key", "value")
        )
        self.output = RowParallelLinear(full_weight(config, f"{layer}.output", size, size), group)
        heads = config.heads // group.world_size
        self.cache = KeyValueCache((batch, heads, config.longest, config.head_size), group.device)
        cosines, sines = rotations(config)
        self.register_buffer("cosines", cosines.to(group.device), persistent=False)
        self.register_buffer("sines", sines.to(group.device), persistent=False)
        self.register_buffer("places", torch.arange(config.longest, device=group.device), persistent=False)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """Return what attention adds to `x` (batch, tokens, hidden), whose tokens are at `positions`."""
        queries = self._rotated(self._heads(self.query(x)), positions)
        keys = self._rotated(self._heads(self.key(x)), positions)
        self.cache.write(keys, self._heads(self.value(x)), positions)
        scores = queries @ self.cache.keys.transpose(-1, -2) / math.sqrt(self.head_size)
        later = self.places > positions.unsqueeze(-1)
        attended = scores.masked_fill(later, -math.inf).softmax(-1) @ self.cache.values
        result: Tensor = self.output(attended.transpose(1, 2).flatten(2))
        return result

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], -1, self.head_size).transpose(1, 2)

    def _rotated(self, x: Tensor, positions: Tensor) -> Tensor:
        first, second = x.chunk(2, -1)
        cosines, sines = self.cosines[positions], self.sines[positions]
        return torch.cat([first * cosines - second * sines, first * sines + second * cosines], -1)
