"""What the ranks must generate: the model in one process, in fp64, without a cache and without groups."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from .config import ModelConfig, full_weight, rotations
from .experts import expert_weights
from .layers import RMSNorm
from .stage import norm_weight

Tensor = torch.Tensor
_SAFETY = 100.0


@dataclass(frozen=True)
class Reference:
    """The tokens (prompts, count), and how sure they are.

    `margin` is the smallest lead of a chosen token or expert over the next one, in fp64. `rounding` is the
    largest difference of these scores between fp64 and fp32.
    """

    tokens: Tensor
    margin: float
    rounding: float

    def require_sure(self) -> None:
        """Raise ValueError unless every choice leads by 100 times what fp32 rounds.

        Ranks add in other orders than one process, and round as much as that does. Then they choose alike.
        """
        if self.margin <= _SAFETY * self.rounding:
            raise ValueError(
                f"a choice leads by {self.margin:.2g} where fp32 rounds {self.rounding:.2g}: equal tokens "
                "would prove nothing, so take another seed"
            )


def reference_generation(config: ModelConfig, prompts: Tensor, count: int) -> Reference:
    """Generate `count` tokens for each prompt (int64, on the CPU) by one process."""
    sequences = prompts
    margin, rounding = math.inf, 0.0
    for _ in range(count):
        exact = _Pass(config, torch.float64)
        logits = exact.logits(sequences)
        rounded = _Pass(config, torch.float32)
        rounded.logits(sequences)
        for sure, other in zip(exact.choices, rounded.choices, strict=True):
            margin = min(margin, sure.margin)
            rounding = max(rounding, float((sure.scores - other.scores).abs().max()))
        sequences = torch.cat([sequences, logits.argmax(-1, keepdim=True)], 1)
    return Reference(sequences[:, prompts.shape[1] :], margin, rounding)


@dataclass(frozen=True)
class _Choice:
    """Scores of which the `count` largest are taken."""

    scores: Tensor
    count: int

    @property
    def margin(self) -> float:
        ordered = self.scores.sort(-1, descending=True).values
        return float((ordered[..., self.count - 1] - ordered[..., self.count]).min())


class _Pass:
    """One pass over whole sequences, which notes what was chosen by what scores."""

    def __init__(self, config: ModelConfig, dtype: torch.dtype) -> None:
        self.config, self.dtype = config, dtype
        self.choices: list[_Choice] = []

    def logits(self, tokens: Tensor) -> Tensor:
        config = self.config
        x = self._weight("embedding", config.vocabulary, config.hidden)[tokens]
        for layer in range(config.layers):
            x = x + self._attention(layer, self._norm(f"{layer}.before_attention", x))
            normal = self._norm(f"{layer}.before_mlp", x)
            x = x + (self._experts(layer, normal) if config.experts else self._mlp(layer, normal))
        last = self._norm("norm", x[:, -1])
        logits = last @ self._weight("logits", config.vocabulary, config.hidden).t()
        self.choices.append(_Choice(logits, 1))
        return logits

    def _attention(self, layer: int, x: Tensor) -> Tensor:
        size, heads = self.config.hidden, self.config.heads
        query, key, value = (
            (x @ self._weight(f"{layer}.{name}", size, size).t())
            .view(*x.shape[:2], heads, -1)
            .transpose(1, 2)
            for name in ("query", "key", "value")
        )
        scores = self._rotate(query) @ self._rotate(key).transpose(-1, -2) / math.sqrt(self.config.head_size)
        later = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        attended = scores.masked_fill(later, -math.inf).softmax(-1) @ value
        return attended.transpose(1, 2).flatten(2) @ self._weight(f"{layer}.output", size, size).t()

    def _rotate(self, x: Tensor) -> Tensor:
        """Multiply pairs of numbers, taken as complex ones, by the unit number of their position."""
        cosines, sines = (table[: x.shape[2]].to(self.dtype) for table in rotations(self.config))
        turned = torch.complex(*x.chunk(2, -1)) * torch.complex(cosines, sines)
        return torch.cat([turned.real, turned.imag], -1)

    def _mlp(self, layer: int, x: Tensor) -> Tensor:
        inner, hidden = self.config.intermediate, self.config.hidden
        gate, up = (self._weight(f"{layer}.{name}", inner, hidden) for name in ("gate", "up"))
        down = self._weight(f"{layer}.down", hidden, inner)
        return (nn.functional.silu(x @ gate.t()) * (x @ up.t())) @ down.t()

    def _experts(self, layer: int, x: Tensor) -> Tensor:
        config = self.config
        router = self._weight(f"{layer}.router", config.experts, config.hidden)
        weights = {name: each.to(self.dtype) for name, each in expert_weights(config, layer).items()}
        scores = x @ router.t()
        self.choices.append(_Choice(scores, config.experts_per_token))
        result = torch.zeros_like(x)
        for place in scores.flatten(0, 1).argsort(-1, descending=True).t()[: config.experts_per_token]:
            result = result + self._by_expert(weights, x, place.view(x.shape[:2])) * self._share(
                scores, place
            )
        return result

    def _share(self, scores: Tensor, place: Tensor) -> Tensor:
        taken = scores.topk(self.config.experts_per_token, -1).values
        chosen = scores.gather(-1, place.view(*scores.shape[:2], 1))
        return (chosen - taken.logsumexp(-1, keepdim=True)).exp()

    @staticmethod
    def _by_expert(weights: dict[str, Tensor], x: Tensor, numbers: Tensor) -> Tensor:
        """Give each token to the expert of its number."""
        gate, up, down = (weights[name][numbers] for name in ("gate", "up", "down"))
        column = x.unsqueeze(-1)
        return (down @ (nn.functional.silu(gate @ column) * (up @ column))).squeeze(-1)

    def _norm(self, name: str, x: Tensor) -> Tensor:
        size = (x.square().mean(-1, keepdim=True) + RMSNorm.epsilon).rsqrt()
        return x * size * norm_weight(self.config, name).to(self.dtype)

    def _weight(self, name: str, *shape: int) -> Tensor:
        return full_weight(self.config, name, *shape).to(self.dtype)
