"""What ranks showed against what is claimed."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_vdist.certification.observation import Observed, contradictions
from pytest_vdist.implementations.protocol import Capabilities

PROOF: dict[str, Any] = {
    "ranks": 3,
    "operations": {"0": 2},
    "process_group": "ProcessGroupAcme acme",
    "sum": [6.0] * 4,
}


def seen(*, bits: int = 8, order: str = "fixed", repeatable: bool = True, **proof: Any) -> Observed:
    numerics = {"order": order, "orders_seen": ["(0+(1+2))"], "repeatable": repeatable}
    return Observed({**PROOF, **proof}, ["Acme 1"], numerics, {"bfloat16": bits})


@pytest.mark.parametrize(
    ("observed", "accumulate", "order", "repeatable", "expected"),
    [
        (seen(), "native", "any", False, []),
        (seen(bits=24), "fp32", "fixed", True, []),
        (
            seen(bits=8),
            "fp32",
            "any",
            False,
            ["accumulate.bfloat16: claimed 'fp32', sums are made with 8 bits"],
        ),
        (
            seen(bits=7),
            "native",
            "any",
            False,
            ["accumulate.bfloat16: claimed 'native', sums are made with 7 bits"],
        ),
        (
            seen(order="any"),
            "native",
            "fixed",
            False,
            ["numerics.order: claimed 'fixed', sums are made as (0+(1+2))"],
        ),
        (
            seen(),
            "native",
            "ascending",
            False,
            ["numerics.order: claimed 'ascending', sums are made as (0+(1+2))"],
        ),
        (seen(order="ascending"), "native", "fixed", False, []),
        (
            seen(repeatable=False),
            "native",
            "any",
            True,
            ["numerics.repeatable: claimed true, two calls with the same input gave different bits"],
        ),
    ],
)
def test_claims_that_the_probes_refute_are_told(
    observed: Observed, accumulate: str, order: str, repeatable: bool, expected: list[str]
) -> None:
    claims = Capabilities(accumulate={"bfloat16": accumulate})
    assert contradictions(observed, claims, order, repeatable) == expected


def test_fewer_than_three_devices_refute_nothing() -> None:
    nothing = Observed(PROOF, ["Acme 1"], {}, {})
    assert contradictions(nothing, Capabilities(accumulate={"bfloat16": "exact"}), "ascending", True) == []


def test_ranks_whose_counters_stand_still_or_whose_sum_is_wrong_raise_doubts() -> None:
    assert seen().doubts == []
    (still,) = seen(operations={}).doubts
    assert "no counter of operations moved in ProcessGroupAcme acme" in still
    assert seen(operations={}, process_group=None).doubts == []
    assert seen(sum=[5.0] * 4).doubts == ["all_reduce on 3 ranks gave [5.0, 5.0, 5.0, 5.0]"]


@pytest.mark.parametrize("declared", ["gloo", "GLOO", "cpu:gloo,cuda:nccl", None])
def test_the_declared_backend_raises_no_doubt(declared: str | None) -> None:
    ran = Observed({**PROOF, "process_group": "ProcessGroupGloo gloo"}, ["Acme 1"], {}, {}, declared)
    assert ran.doubts == []


def test_another_backend_than_the_declared_one_raises_doubts_unless_it_is_the_vendors_own() -> None:
    ran = Observed({**PROOF, "process_group": "ProcessGroupGloo gloo"}, ["Acme 1"], {}, {}, "acme")
    assert ran.doubts == [
        "the device backend declares process_group_backend='acme', and the process groups of the "
        "implementation are ProcessGroupGloo gloo"
    ]
    assert Observed(PROOF, ["Acme 1"], {}, {}, "acme_v2").doubts == []
