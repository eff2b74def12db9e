"""Models that are shared wrongly: coordinators work, and what uses them does not."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..models import attention, experts, generation, layers  # noqa: TID252
from .registry import Original, Patch, mutant

DEFECT = "models"
Tensor = torch.Tensor


@mutant(DEFECT, "VD-MOD-001")
def row_parallel_layers_do_not_add_up(patch: Patch) -> None:
    """The sum over the tensor-parallel ranks is missing: each goes on with its part."""

    @patch.around(layers.RowParallelLinear, "forward")
    def forward(original: Original, self: layers.RowParallelLinear, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight)


@mutant(DEFECT, "VD-MOD-002")
def tokens_go_to_the_experts_of_the_next_rank(patch: Patch) -> None:
    """With expert parallelism, a rank takes the tokens that are meant for the next one's experts."""

    @patch.around(experts.Experts, "_shares_of_own")
    def shares_of_own(original: Original, self: experts.Experts, shares: Tensor, numbers: Tensor) -> Tensor:
        here = self.gate.shape[0] if self.expert_parallel else 0
        total = here * self.groups.expert.world_size if here else 1
        return original(self, shares, (numbers - here) % total if here else numbers)


@mutant(DEFECT, "VD-MOD-001")
def the_vocabulary_is_off_by_one(patch: Patch) -> None:
    """Every rank but the first takes its rows of the embedding to begin one token later than they do."""

    @patch.around(layers.VocabularyParallelEmbedding, "forward")
    def forward(original: Original, self: layers.VocabularyParallelEmbedding, tokens: Tensor) -> Tensor:
        return original(self, tokens - 1 if self.group.rank_in_group else tokens)


@mutant(DEFECT, "VD-MOD-001", "VD-MOD-002")
def keys_and_values_of_new_tokens_are_stale(patch: Patch) -> None:
    """After the prompt, keys and values are not written: attention sees what was there before."""

    @patch.around(attention.KeyValueCache, "write")
    def write(
        original: Original, self: attention.KeyValueCache, keys: Tensor, values: Tensor, positions: Tensor
    ) -> None:
        if positions.shape[0] > 1:
            original(self, keys, values, positions)


@mutant(DEFECT, "VD-MOD-003")
def the_last_rank_loads_other_weights(patch: Patch) -> None:
    """The last tensor-parallel rank's part of each weight is rounded to bfloat16."""

    @patch.around(layers, "shard")
    def shard(original: Original, full: Tensor, dim: int, group: Any) -> Any:
        last = group.world_size > 1 and group.rank_in_group == group.world_size - 1
        return original(full.bfloat16().to(full.dtype) if last else full, dim, group)


@mutant(DEFECT, "VD-MOD-003")
def tokens_are_chosen_by_each_rank(patch: Patch) -> None:
    """The last tensor-parallel rank picks the second best of the tokens."""

    @patch.around(generation, "chosen_tokens")
    def chosen_tokens(original: Original, stage: Any, logits: Tensor) -> Tensor:
        group = stage.groups.tensor
        last = group.world_size > 1 and group.rank_in_group == group.world_size - 1
        return logits.topk(2, -1).indices[..., 1] if last else original(stage, logits)
