from __future__ import annotations

import pytest

from pytest_vdist.certificate.requirements import (
    REGISTRY_FILE,
    Level,
    Requirement,
    RequirementsError,
    parse_registry,
    registry,
)

VALID = """
schema = "vdist-requirements/1"
spec_version = "2026.1"
[areas]
AR = "All-reduce"
[profiles]
core = "What all need."
numerics = "Bits."
[area_profiles]
AR = ["core"]
[rationales]
AR = "Sums are everywhere."
[VD-AR-001]
level = "MUST"
chapter = "collectives"
min_world_size = 2
text = "The result is the sum."
"""


def test_every_area_of_the_shipped_registry_has_requirements_numbered_without_gaps() -> None:
    shipped = registry()
    for area in shipped.areas:
        numbers = [int(r.id[-3:]) for r in shipped.requirements.values() if r.area == area]
        assert numbers == list(range(1, len(numbers) + 1))
        assert numbers, area


def test_every_shipped_text_is_one_sentence_of_its_own_within_its_area() -> None:
    texts = [r.text for r in registry().requirements.values()]
    assert all(text.endswith(".") for text in texts)
    areas_and_texts = {(r.area, r.text) for r in registry().requirements.values()}
    assert len(areas_and_texts) == len(texts)


def test_the_registry_is_read_once() -> None:
    assert registry() is registry()


def test_a_valid_registry_gives_its_requirements_by_id() -> None:
    parsed = parse_registry(VALID, source="x.toml")
    assert parsed.areas == {"AR": "All-reduce"}
    assert parsed.require(("VD-AR-001",)) == (
        Requirement(
            "VD-AR-001",
            "AR",
            Level.MUST,
            "collectives",
            2,
            "The result is the sum.",
            "Sums are everywhere.",
            ("core",),
        ),
    )
    assert parsed.spec_version == "2026.1"


def test_an_entry_has_a_rationale_of_its_own_and_more_profiles_than_its_area() -> None:
    own = VALID + 'profiles = ["numerics"]\nrationale = "Bits count."\n'
    (entry,) = parse_registry(own, source="x.toml").require(("VD-AR-001",))
    assert (entry.rationale, entry.profiles) == ("Bits count.", ("core", "numerics"))


def test_an_unknown_id_is_refused_with_the_nearest_known_ones() -> None:
    with pytest.raises(RequirementsError, match=r"unknown requirement 'VD-AR-01'; did you mean VD-AR-001\?"):
        parse_registry(VALID, source="x.toml").require(("VD-AR-01",))


def test_an_unknown_id_that_resembles_none_is_refused_with_the_areas() -> None:
    with pytest.raises(RequirementsError, match="unknown requirement 'nonsense'; the areas are AR"):
        parse_registry(VALID, source="x.toml").require(("nonsense",))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"vdist-requirements/1"', '"v2"', "x.toml: schema must be 'vdist-requirements/1', got 'v2'"),
        ('"2026.1"', "2026.1", 'x.toml: spec_version must look like "2026.1", got 2026.1'),
        (
            '["core"]',
            '["cor"]',
            "x.toml: [area_profiles]: AR must list some of the profiles core, numerics, got ['c",
        ),
        ("AR = [", "BC = [", "x.toml: [area_profiles] has no entry for the area 'AR'"),
        (
            "[rationales]\nAR",
            "[rationales]\nBC = 'b'\nAR",
            "x.toml: [rationales]: area 'BC' is not in [areas]",
        ),
        (
            "level =",
            "profiles = 3\nlevel =",
            "x.toml: VD-AR-001: profiles must list some of the profiles core,",
        ),
        ("level =", "rationale = ''\nlevel =", "x.toml: VD-AR-001: rationale must be a text, got ''"),
        ("[areas]", "[areas", "x.toml: not valid TOML: "),
        ("[areas]\n", "[VD-AR-002]\n", "x.toml: [areas] must name at least one area, got None"),
        ('AR = "All', 'ar = "All', "x.toml: area 'ar' must be upper-case letters and digits"),
        ('"All-reduce"', "3", "x.toml: area AR: the title must be a text, got 3"),
        ("VD-AR-001", "VD-AR-1", "x.toml: requirement id must look like VD-AR-001, got 'VD-AR-1'"),
        ("VD-AR-001", "VD-XX-001", "x.toml: VD-XX-001: area 'XX' is not in [areas]: AR"),
        ('"MUST"', '"must"', "x.toml: VD-AR-001: level must be one of MUST, SHOULD, MAY, got 'must'"),
        ('"MUST"', "[1]", "x.toml: VD-AR-001: level must be one of MUST, SHOULD, MAY, got [1]"),
        ('"collectives"', '"a/b"', "chapter must be the name of a folder of the suites, got 'a/b'"),
        ("min_world_size = 2", "min_world_size = 0", "min_world_size must be a whole number from 1, got 0"),
        (
            "min_world_size = 2",
            "min_world_size = true",
            "min_world_size must be a whole number from 1, got True",
        ),
        (
            '"The result is the sum."',
            '" "',
            "x.toml: VD-AR-001: text must be a text without blanks around it, got ' '",
        ),
        ('level = "MUST"\n', "", "x.toml: VD-AR-001: level is missing; it must be one of MUST, SHOULD, MAY"),
        ("level =", 'color = "red"\nlevel =', "VD-AR-001: unknown key 'color'; the keys are level, chapter,"),
        (
            'spec_version = "2026.1"',
            'spec_version = "2026.1"\nVD-AR-002 = 1',
            "x.toml: VD-AR-002 must be a table, got 1",
        ),
    ],
)
def test_a_malformed_registry_is_refused_with_the_place_and_the_value(
    old: str, new: str, message: str
) -> None:
    assert old in VALID
    with pytest.raises(RequirementsError) as caught:
        parse_registry(VALID.replace(old, new), source="x.toml")
    assert message in str(caught.value)


def test_an_id_that_is_used_twice_is_refused() -> None:
    twice = VALID + VALID[VALID.index("[VD-AR-001]") :]
    with pytest.raises(RequirementsError, match="not valid TOML"):
        parse_registry(twice, source="x.toml")


def test_the_registry_lies_beside_its_reader() -> None:
    assert REGISTRY_FILE.is_file()
