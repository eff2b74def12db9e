"""A sentence encoder of the BERT family with given weights, its linear layers split over a group.

J. Devlin et al., "BERT", 2018, https://arxiv.org/abs/1810.04805; N. Reimers and I. Gurevych,
"Sentence-BERT", 2019, https://arxiv.org/abs/1908.10084.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from .layers import ColumnParallelLinear, RowParallelLinear, parameter
from .layouts import ParallelGroup

Tensor = torch.Tensor
_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64}


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a file of safetensors (https://github.com/huggingface/safetensors#format), tensors by name."""
    size = path.stat().st_size
    raw = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
    start = 8 + int.from_bytes(bytes(raw[:8].tolist()), "little")
    header = json.loads(bytes(raw[8:start].tolist()))
    header.pop("__metadata__", None)
    return {name: _tensor(raw[start:], **entry) for name, entry in header.items()}


def _tensor(data: Tensor, dtype: str, shape: list[int], data_offsets: list[int]) -> Tensor:
    begin, end = data_offsets
    return data[begin:end].clone().view(_DTYPES[dtype]).view(shape)


class Encoder(nn.Module):
    """Turns the numbers of a sentence's tokens into a vector of length 1, the same on every rank."""

    def __init__(
        self, weights: Mapping[str, Tensor], heads: int, group: ParallelGroup, dtype: torch.dtype
    ) -> None:
        """Take this rank's part of `weights`, in `dtype`. Raises ValueError if they do not divide."""
        super().__init__()
        self.device = group.device
        floats = {name: each.to(dtype) for name, each in weights.items() if each.is_floating_point()}
        self.words, self.places, self.kinds = (
            parameter(floats[f"embeddings.{name}_embeddings.weight"], group.device)
            for name in ("word", "position", "token_type")
        )
        self.norm = _norm(floats, "embeddings", group.device)
        numbers = {name.split(".")[2] for name in floats if name.startswith("encoder.layer.")}
        self.layers = nn.ModuleList(
            EncoderLayer(floats, f"encoder.layer.{number}", heads, group) for number in range(len(numbers))
        )

    @torch.no_grad()
    def forward(self, tokens: Tensor) -> Tensor:
        """Return the embedding of one sentence, (hidden,), from its tokens, (length,) int64."""
        x = self.norm(self.words[tokens] + self.places[: len(tokens)] + self.kinds[0])
        for layer in self.layers:
            x = layer(x)
        return nn.functional.normalize(x.mean(0), dim=0)


class EncoderLayer(nn.Module):
    """Attention among all tokens, then an MLP, each added to its input and normalised after."""

    def __init__(self, weights: Mapping[str, Tensor], place: str, heads: int, group: ParallelGroup) -> None:
        super().__init__()
        self.heads = heads // group.world_size

        def column(name: str) -> ColumnParallelLinear:
            weight, bias = weights[f"{place}.{name}.weight"], weights[f"{place}.{name}.bias"]
            return ColumnParallelLinear(weight, group, bias)

        def row(name: str) -> RowParallelLinear:
            weight, bias = weights[f"{place}.{name}.weight"], weights[f"{place}.{name}.bias"]
            return RowParallelLinear(weight, group, bias)

        self.query, self.key, self.value = (
            column(f"attention.self.{name}") for name in ("query", "key", "value")
        )
        self.output = row("attention.output.dense")
        self.attention_norm = _norm(weights, f"{place}.attention.output", group.device)
        self.up, self.down = column("intermediate.dense"), row("output.dense")
        self.mlp_norm = _norm(weights, f"{place}.output", group.device)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (self._split(part(x)) for part in (self.query, self.key, self.value))
        attended = (query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])).softmax(-1) @ value
        x = self.attention_norm(x + self.output(attended.transpose(0, 1).flatten(1)))
        result: Tensor = self.mlp_norm(x + self.down(nn.functional.gelu(self.up(x))))
        return result

    def _split(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], self.heads, -1).transpose(0, 1)


def _norm(weights: Mapping[str, Tensor], place: str, device: torch.device) -> nn.LayerNorm:
    scale, shift = weights[f"{place}.LayerNorm.weight"], weights[f"{place}.LayerNorm.bias"]
    norm = nn.LayerNorm(scale.shape[0], eps=1e-12)
    norm.weight, norm.bias = parameter(scale, device), parameter(shift, device)
    return norm
