from __future__ import annotations

import torch

from pytest_vdist.judge.assertions import assert_bounded
from pytest_vdist.judge.margins import note, noted_margins
from pytest_vdist.judge.observation import Observation


def test_margins_of_bounded_comparisons_are_collected_while_somebody_asks() -> None:
    inputs = [torch.tensor([0.1]), torch.tensor([0.2])]
    total = inputs[0] + inputs[1]
    seen = Observation(total, total.dtype, (1,), "cpu", "cpu", True, True, False)
    with noted_margins() as margins:
        returned = assert_bounded([seen, seen], inputs, accumulate="native", call="all_reduce()")
        note(0.5)
    note(0.75)
    assert margins == [returned, 0.5]
