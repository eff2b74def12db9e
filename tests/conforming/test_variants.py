"""No false alarms: the suites pass on implementations that differ in what the specification leaves open.

All chapters run on a variant by `pytest --vdist-backend=cpu --vdist-impl=tests/conforming/variants.py:ring`;
here those chapters in which it differs, at the world sizes that show it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pytest_vdist.certificate.suites import SUITES

from . import variants

VARIANTS = Path(__file__).with_name("variants.py")
SUMS = ("collectives/test_all_reduce.py", "collectives/test_reduce_scatter.py")
FILES = {
    "ring": (*SUMS, "groups/test_one_rank.py"),
    "wide_tree": (*SUMS, "collectives/test_all_gather.py", "objects/test_isend_object.py"),
    "in_place": SUMS,
    "doubling": (SUMS[0], "collectives/test_broadcast.py"),
}


def run(factory: str, *arguments: str) -> str:
    """Run suites on an implementation of the file of variants, and return what pytest prints."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("VDIST_", "PYTEST_"))
    }
    result = subprocess.run(
        [
            sys.executable,
            *("-m", "pytest", "-q", "-c", os.devnull, f"--rootdir={SUITES}", "-p", "no:cacheprovider"),
            *("--vdist-backend=cpu", f"--vdist-impl={VARIANTS}:{factory}", *arguments),
        ],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    return result.stdout + result.stderr


@pytest.mark.parametrize("name", FILES)
def test_a_legal_variant_passes(name: str) -> None:
    printed = run(name, "--vdist-world-sizes=3", *(str(SUITES / file) for file in FILES[name]))
    passed = re.search(r"(\d+) passed", printed)
    assert passed, printed
    assert int(passed[1]) >= 12, printed
    assert not re.search(r"\d+ (failed|error)", printed), printed


def test_orders_of_additions_differ_and_a_declaration_tells_wide_from_native() -> None:
    rows = [torch.tensor([value], dtype=torch.bfloat16).repeat(3) for value in (256.0, 1.0, 1.0)]
    orders = (variants.in_ring, variants.by_recursive_doubling, variants.in_wide_tree)
    assert [order(rows).tolist() for order in orders] == [[256.0, 258.0, 256.0], [256.0] * 3, [258.0] * 3]
    assert variants.wide_tree().capabilities("cpu").accumulate == variants.WIDE
    assert variants.ring().capabilities("cpu").accumulate == {}
