"""Layers whose weights are split over the ranks of a tensor-parallel group.

M. Shoeybi et al., "Megatron-LM", 2019, https://arxiv.org/abs/1909.08053: columns first, then rows, so that
two products need one sum over the ranks.
"""

from __future__ import annotations

import torch
from torch import nn

from .layouts import ParallelGroup

Tensor = torch.Tensor


def shard(full: Tensor, dim: int, group: ParallelGroup) -> nn.Parameter:
    """Return this rank's equal part of a weight along `dim`, on the group's device.

    Raises ValueError if it does not divide by the number of ranks.
    """
    if full.shape[dim] % group.world_size:
        raise ValueError(
            f"size {full.shape[dim]} of dim {dim} does not divide by {group.world_size} ranks: pad the weight"
        )
    own = full.chunk(group.world_size, dim)[group.rank_in_group]
    return parameter(own, group.device)


def parameter(values: Tensor, device: torch.device) -> nn.Parameter:
    """Return a parameter of its own memory, which is not trained."""
    return nn.Parameter(values.to(device).clone(memory_format=torch.contiguous_format), requires_grad=False)


def padded_rows(full: Tensor, multiple: int) -> Tensor:
    """Add rows of zeros until their number divides by `multiple`."""
    missing = -full.shape[0] % multiple
    return torch.cat([full, full.new_zeros(missing, *full.shape[1:])])


class ColumnParallelLinear(nn.Module):
    """A linear layer (weight: outputs x inputs) of which each rank gives its part of the outputs."""

    def __init__(self, weight: Tensor, group: ParallelGroup, bias: Tensor | None = None) -> None:
        super().__init__()
        self.weight = shard(weight, 0, group)
        self.bias = None if bias is None else shard(bias, 0, group)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight, self.bias)


class RowParallelLinear(nn.Module):
    """A linear layer whose inputs are split over the ranks; every rank gets all outputs."""

    def __init__(self, weight: Tensor, group: ParallelGroup, bias: Tensor | None = None) -> None:
        super().__init__()
        self.group = group
        self.weight = shard(weight, 1, group)
        self.bias = None if bias is None else parameter(bias, group.device)

    def forward(self, x: Tensor) -> Tensor:
        summed = self.group.all_reduce(nn.functional.linear(x, self.weight))
        return summed if self.bias is None else summed + self.bias


class VocabularyParallelEmbedding(nn.Module):
    """An embedding of which each rank holds the rows of some tokens."""

    def __init__(self, weight: Tensor, group: ParallelGroup) -> None:
        super().__init__()
        self.group = group
        self.weight = shard(padded_rows(weight, group.world_size), 0, group)
        self.first_token = self.weight.shape[0] * group.rank_in_group

    def forward(self, tokens: Tensor) -> Tensor:
        rows = tokens - self.first_token
        elsewhere = (rows < 0) | (rows >= self.weight.shape[0])
        found = nn.functional.embedding(rows.masked_fill(elsewhere, 0), self.weight)
        return self.group.all_reduce(found.masked_fill(elsewhere.unsqueeze(-1), 0.0))


class VocabularyParallelLogits(nn.Module):
    """The last layer: each rank has the logits of some tokens, and gets those of all."""

    def __init__(self, weight: Tensor, group: ParallelGroup) -> None:
        super().__init__()
        self.group = group
        self.vocabulary = weight.shape[0]
        self.weight = shard(padded_rows(weight, group.world_size), 0, group)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.group.all_gather(nn.functional.linear(x, self.weight), -1)
        return logits[..., : self.vocabulary]


class RMSNorm(nn.Module):
    """B. Zhang and R. Sennrich, "Root mean square layer normalization", 2019, arXiv:1910.07467."""

    epsilon = 1e-6

    def __init__(self, weight: Tensor, device: torch.device) -> None:
        super().__init__()
        self.weight = parameter(weight, device)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.epsilon) * self.weight


class GatedMLP(nn.Module):
    """Two column-parallel layers, one of them a gate, and a row-parallel one (SwiGLU, arXiv:2002.05202)."""

    def __init__(self, gate: Tensor, up: Tensor, down: Tensor, group: ParallelGroup) -> None:
        super().__init__()
        self.gate = ColumnParallelLinear(gate, group)
        self.up = ColumnParallelLinear(up, group)
        self.down = RowParallelLinear(down, group)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.down(nn.functional.silu(self.gate(x)) * self.up(x))
        return hidden
