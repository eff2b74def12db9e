"""Long rows of calls: what is wrong only after many of them is found, and said with the call's number."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from pytest_vdist.judge.series import CALLS, assert_series, series_findings, whole_series


@dataclass
class Alone:
    """The only rank of its group: every collective returns its input."""

    rank: int = 0
    rank_in_group: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    calls: int = 0

    def all_reduce(self, input_: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return input_

    def all_gatherv(self, input_: torch.Tensor, dim: int, sizes: list[int]) -> torch.Tensor:
        assert (dim, sizes) == (0, [input_.numel()])
        return input_


class Wrapping(Alone):
    def all_reduce(self, input_: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return input_ if self.calls % 256 else torch.zeros_like(input_)


class Ring(Alone):
    """The first buffer is used again for the last result."""

    first: torch.Tensor | None = None

    def all_reduce(self, input_: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.first = input_ if self.first is None else self.first
        return self.first.copy_(input_) if self.calls == CALLS else input_


class Silent(Alone):
    def all_reduce(self, input_: torch.Tensor) -> Any:
        return None


def findings(group: Alone, operation: str = "all_reduce") -> list[str]:
    return series_findings(group, whole_series(operation, 1))


def test_a_row_of_right_results_passes() -> None:
    group = Alone()
    assert findings(group) == []
    assert group.calls == CALLS
    assert findings(Alone(), "all_gatherv") == []


def test_a_counter_that_wraps_is_found_and_the_calls_are_numbered() -> None:
    first, second = findings(Wrapping())
    assert first.startswith("call 256 of 520 in a row, all_reduce(")
    assert second.startswith("call 512 of 520 in a row, all_reduce(")
    assert "changed by a later call" not in first


def test_a_buffer_that_is_used_again_is_found_however_late() -> None:
    (found,) = findings(Ring())
    assert found.startswith("call 1 of 520 in a row, all_reduce(")
    assert "right when it came, and changed by a later call: index (0,)" in found


def test_of_many_wrong_calls_three_are_shown() -> None:
    *shown, more = findings(Silent())
    assert [each.rpartition(": ")[2] for each in shown] == ["got None, expected float32[8]"] * 3
    assert more == "517 more calls of the row"


def test_findings_name_their_rank() -> None:
    def run(function: Any, *args: Any, world_size: int, **_: Any) -> list[Any]:
        return [[], ["wrong"]][:world_size]

    with pytest.raises(AssertionError, match=r"^rank 1: wrong$"):
        assert_series(run, "all_reduce", world_size=2)
