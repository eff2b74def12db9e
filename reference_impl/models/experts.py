"""A mixture of experts: each token goes to the few experts that a router picks, wherever they are."""

from __future__ import annotations

import torch
from torch import nn

from .config import ModelConfig, full_weight
from .layers import parameter
from .layouts import ParallelGroup, ParallelGroups, part, parts

Tensor = torch.Tensor


def expert_weights(config: ModelConfig, layer: int) -> dict[str, Tensor]:
    """Return the whole weights of a layer's experts: gate, up (expert, inner, hidden), and down."""
    experts, inner, hidden = config.experts, config.intermediate, config.hidden
    return {
        "gate": full_weight(config, f"{layer}.gate", experts, inner, hidden),
        "up": full_weight(config, f"{layer}.up", experts, inner, hidden),
        "down": full_weight(config, f"{layer}.down", experts, hidden, inner),
    }


class Experts(nn.Module):
    """The experts of this rank, whole ones or a part of each.

    With expert parallelism, tensor and data ranks share the experts: tensor ranks take different tokens,
    gather those of all (dispatch), and add up what the experts of all make of them (combine). `token_sizes`
    is how many tokens each expert-parallel rank brings, for the numbers of tokens that there will be.
    """

    def __init__(
        self,
        config: ModelConfig,
        layer: int,
        groups: ParallelGroups,
        expert_parallel: bool,
        batches: list[int],
    ) -> None:
        super().__init__()
        self.groups, self.expert_parallel, self.batches = groups, expert_parallel, batches
        self.experts_per_token = config.experts_per_token
        sharing = groups.expert if expert_parallel else groups.tensor
        weights = expert_weights(config, layer)
        dims = dict.fromkeys(weights, 0) if expert_parallel else {"gate": 1, "up": 1, "down": 2}
        self.gate, self.up, self.down = (
            _part_of(weights[name], dims[name], sharing) for name in ("gate", "up", "down")
        )
        self.first_expert = self.gate.shape[0] * groups.expert.rank_in_group if expert_parallel else 0
        self.router = parameter(
            full_weight(config, f"{layer}.router", config.experts, config.hidden), sharing.device
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return what the experts add to `x` (batch, tokens, hidden)."""
        tokens = x.flatten(0, 1)
        if not self.expert_parallel:
            return self.groups.tensor.all_reduce(self._contributions(tokens, *self._route(tokens))).view_as(x)
        sizes = self._token_sizes(x.shape[1])
        tensor = self.groups.tensor
        own = part(tokens.shape[0], tensor.world_size, tensor.rank_in_group)
        mine = tokens[own.start : own.stop]
        shares, experts = self._route(mine)
        everyones = self.groups.expert.all_gatherv([mine, shares, experts], 0, sizes)
        combined = self.groups.expert.reduce_scatterv(self._contributions(*everyones), 0, sizes)
        whole: Tensor = tensor.all_gatherv(combined, 0, parts(tokens.shape[0], tensor.world_size))
        return whole.view_as(x)

    def _route(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return shares (sum 1) and numbers of the experts of each token."""
        scores, experts = nn.functional.linear(tokens, self.router).topk(self.experts_per_token, -1)
        return scores.softmax(-1), experts

    def _contributions(self, tokens: Tensor, shares: Tensor, experts: Tensor) -> Tensor:
        """Return the sum over this rank's experts, each with the share that the tokens give it."""
        gated = nn.functional.silu(torch.einsum("th,eih->eti", tokens, self.gate))
        inner = gated * torch.einsum("th,eih->eti", tokens, self.up)
        given = torch.einsum("eti,ehi->eth", inner, self.down)
        return (given * self._shares_of_own(shares, experts).t().unsqueeze(-1)).sum(0)

    def _shares_of_own(self, shares: Tensor, experts: Tensor) -> Tensor:
        """Return the share of each of this rank's experts in each token: (tokens, experts here)."""
        own = self.first_expert + torch.arange(self.gate.shape[0], device=experts.device)
        return (shares.unsqueeze(-1) * (experts.unsqueeze(-1) == own)).sum(1)

    def _token_sizes(self, length: int) -> list[int]:
        tensor_ranks = self.groups.tensor.world_size
        return [size for batch in self.batches for size in parts(batch * length, tensor_ranks)]


def _part_of(full: Tensor, dim: int, group: ParallelGroup) -> nn.Parameter:
    return parameter(full.chunk(group.world_size, dim)[group.rank_in_group], group.device)
