"""Capability manifests: what may stand in them, and what a wrong one is told."""

from __future__ import annotations

import pytest

from pytest_vdist.certificate.manifest import manifest_text, parse_manifest
from pytest_vdist.certificate.tables import FileError

WHOLE = """
schema = "vdist-manifest/1"
[device]
name = "acme"
vendor = "Acme"
[claims]
compile_modes = ["eager", "inductor"]
reduction_dtypes = ["float32", "bfloat16"]
device_failures = "abort"
in_place = ["all_reduce"]
[unsupported]
all_gatherv = "no ragged kernels"
[accumulate]
bfloat16 = "fp32"
[operators]
all_reduce = "acme::all_reduce"
[unchecked_calls]
shape = "nobody looks"
[numerics]
order = "fixed"
repeatable = true
"""


def test_a_manifest_replaces_what_it_names_and_leaves_the_rest() -> None:
    manifest = parse_manifest(WHOLE, source="m.toml")
    own = {
        "compile_modes": ("eager",),
        "unsupported": {"split_group": "no"},
        "accumulate": {},
        "movement_dtypes": ("int8",),
    }
    claims = manifest.overlay(own)
    assert (manifest.device, manifest.order, manifest.repeatable) == ("acme", "fixed", True)
    assert claims["compile_modes"] == ("eager", "inductor")
    assert claims["unsupported"] == {"all_gatherv": "no ragged kernels"}
    assert claims["accumulate"] == {"bfloat16": "fp32"}
    assert claims["movement_dtypes"] == ("int8",)
    assert claims["device_failures"] == "abort"
    assert claims["in_place"] == ("all_reduce",)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"vdist-manifest/1"', '"v9"', "m.toml: schema must be 'vdist-manifest/1', got 'v9'"),
        ("[device]", "[device", "m.toml: not valid TOML: "),
        (
            "[device]",
            "[devices]",
            "m.toml: unknown key 'devices'; did you mean device? the keys are device, claims,",
        ),
        ('name = "acme"', "", "m.toml: [device]: name is missing; it must be the name of the backend"),
        ('"acme"', "3", "m.toml: [device]: name must be the name of the backend, got 3"),
        (
            '"inductor"',
            '"jit"',
            "[claims]: compile_modes must be a list of some of eager, aot_eager, inductor, cuda",
        ),
        (
            '"bfloat16"]',
            '"float32"]',
            "[claims]: reduction_dtypes must be a list of some of float64, float32,",
        ),
        (
            "device_fail",
            "device_fial",
            "[claims]: unknown key 'device_fialures'; did you mean device_failures?",
        ),
        ('"no ragged kernels"', "true", "[unsupported]: all_gatherv must be a text: the reason, got True"),
        (
            "all_gatherv =",
            "all_gather_v =",
            "[unsupported]: unknown key 'all_gather_v'; did you mean all_gatherv?",
        ),
        ('"fp32"', '"fp16"', "m.toml: [accumulate]: bfloat16 must be one of native, fp32, exact, got 'fp16'"),
        (
            '"fixed"',
            '"random"',
            "m.toml: [numerics]: order must be one of any, fixed, ascending, got 'random'",
        ),
        ("= true", '= "yes"', "m.toml: [numerics]: repeatable must be true or false, got 'yes'"),
    ],
)
def test_a_wrong_manifest_is_refused_with_file_key_value_and_what_is_allowed(
    old: str, new: str, message: str
) -> None:
    assert old in WHOLE
    with pytest.raises(FileError) as caught:
        parse_manifest(WHOLE.replace(old, new, 1), source="m.toml")
    assert message in str(caught.value)


def test_a_manifest_without_a_device_is_refused() -> None:
    with pytest.raises(FileError, match=r"m.toml: \[device\] is missing; it must have name"):
        parse_manifest('schema = "vdist-manifest/1"', source="m.toml")


def test_what_is_written_is_read_as_it_was() -> None:
    fields = {
        "compile_modes": ("eager",),
        "reduction_dtypes": None,
        "device_failures": "error",
        "unsupported": {"gather": 'a "reason"\nof two lines, with \\'},
        "accumulate": {},
    }
    text = manifest_text("cpu", fields, order="any", repeatable=False, about="Seen\nyesterday.")
    manifest = parse_manifest(text, source="m.toml")
    assert text.startswith("# Seen\n# yesterday.\n")
    assert manifest.claims == {"compile_modes": ["eager"], "device_failures": "error"}
    assert manifest.maps == {"unsupported": fields["unsupported"]}
    assert (manifest.device, manifest.order, manifest.repeatable) == ("cpu", "any", False)
