"""One pipeline stage of a model: some of its layers, in the part that belongs to one rank."""

from __future__ import annotations

import torch
from torch import nn

from .attention import Attention
from .config import ModelConfig, full_weight
from .experts import Experts
from .layers import GatedMLP, RMSNorm, VocabularyParallelEmbedding, VocabularyParallelLogits
from .layouts import Layout, ParallelGroups, part, parts

Tensor = torch.Tensor


def norm_weight(config: ModelConfig, name: str) -> Tensor:
    """Return the whole weight of a norm."""
    return 1.0 + full_weight(config, name, config.hidden)


class Layer(nn.Module):
    """Attention, then an MLP or experts, each on normalised values and added to them."""

    def __init__(
        self, config: ModelConfig, layout: Layout, number: int, groups: ParallelGroups, batches: list[int]
    ) -> None:
        super().__init__()
        device = groups.world.device
        self.before_attention = RMSNorm(norm_weight(config, f"{number}.before_attention"), device)
        self.before_mlp = RMSNorm(norm_weight(config, f"{number}.before_mlp"), device)
        batch = batches[groups.data.rank_in_group]
        self.attention = Attention(config, number, batch, groups.tensor)
        self.mlp = _mlp(config, layout, number, groups, batches)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        x = x + self.attention(self.before_attention(x), positions)
        result: Tensor = x + self.mlp(self.before_mlp(x))
        return result


def _mlp(
    config: ModelConfig, layout: Layout, number: int, groups: ParallelGroups, batches: list[int]
) -> nn.Module:
    if config.experts:
        return Experts(config, number, groups, layout.expert_parallel, batches)
    inner, hidden = config.intermediate, config.hidden
    gate, up = (full_weight(config, f"{number}.{name}", inner, hidden) for name in ("gate", "up"))
    return GatedMLP(gate, up, full_weight(config, f"{number}.down", hidden, inner), groups.tensor)


class Stage(nn.Module):
    """What one rank runs of a model.

    `prompt_count` prompts are shared by the data ranks; this one has `batch` of them.
    """

    def __init__(
        self, config: ModelConfig, layout: Layout, groups: ParallelGroups, prompt_count: int
    ) -> None:
        """Make the weights of this rank. Raises ValueError where the model cannot be shared so."""
        super().__init__()
        layout.require(config)
        if prompt_count < layout.data:
            raise ValueError(f"{prompt_count} prompts are too few for data={layout.data}: give more prompts")
        self.config, self.layout, self.groups = config, layout, groups
        self.device = groups.world.device
        batches = parts(prompt_count, layout.data)
        self.prompts = part(prompt_count, layout.data, groups.data.rank_in_group)
        self.numbers = part(config.layers, layout.pipeline, groups.pipeline.rank_in_group)
        self.is_first = groups.pipeline.rank_in_group == 0
        self.is_last = groups.pipeline.rank_in_group == layout.pipeline - 1
        vocabulary = (config.vocabulary, config.hidden)
        self.embedding = (
            VocabularyParallelEmbedding(full_weight(config, "embedding", *vocabulary), groups.tensor)
            if self.is_first
            else None
        )
        self.layers = nn.ModuleList(Layer(config, layout, each, groups, batches) for each in self.numbers)
        self.norm = RMSNorm(norm_weight(config, "norm"), self.device) if self.is_last else None
        self.logits = (
            VocabularyParallelLogits(full_weight(config, "logits", *vocabulary), groups.tensor)
            if self.is_last
            else None
        )

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """Turn tokens (first stage) or hidden values into hidden values, or the last token's logits."""
        if self.embedding is not None:
            x = self.embedding(x)
        for layer in self.layers:
            x = layer(x, positions)
        if self.norm is not None and self.logits is not None:
            x = self.logits(self.norm(x[:, -1]))
        return x
