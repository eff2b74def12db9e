"""`vdist verify`, `sign`, `diff` and `merge`, on folders as certifications leave them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_vdist import cli
from pytest_vdist.certificate.outcomes import RANKS_PER_DEVICE
from pytest_vdist.certificate.report import folder as names
from pytest_vdist.certificate.report.sums import write_sums
from pytest_vdist.certificate.report.verification import verify
from tests.certificate.sample_reports import conformant_results, result, write_folder

WAIVERS = """schema = "vdist-waivers/1"
[[waiver]]
requirement = "VD-AR-001"
issue = "https://example.org/issues/7"
owner = "ada@example.org"
reason = "rounds at every hop"
expires = {expires}
"""


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a signed, conformant folder; beside it lie the vendor's keys."""
    place = tmp_path_factory.mktemp("signed")
    folder = write_folder(place / "out", conformant_results()[:40], profiles=[])
    key = ed25519.Ed25519PrivateKey.generate()
    (place / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    (place / "key.pub").write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    assert cli.main(["sign", str(folder), "--key", str(place / "key.pem")]) == 0
    return folder


def with_report(folder: Path, **changes: Any) -> Path:
    """Change the report of a folder and write fresh sums, as somebody would who knows how."""
    path = folder / names.REPORT
    path.write_text(names.report_text({**json.loads(path.read_text()), **changes}))
    write_sums(folder)
    return folder


def test_a_whole_conformant_folder_is_verified(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_folder(tmp_path / "out", conformant_results())
    assert cli.main(["verify", str(folder)]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told == ["profile core: conformant", "profile numerics: conformant", f"{folder}: verified"]


def test_what_was_not_tested_is_incomplete(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "out", conformant_results()[1:])
    assert verify(folder) == (10, ["profile core: incomplete", "profile numerics: conformant"])


def test_a_failed_test_fails_the_verification(tmp_path: Path) -> None:
    tests = conformant_results()
    tests[0] |= {"outcome": "hang"}
    code, told = verify(write_folder(tmp_path / "out", tests))
    assert (code, told[0]) == (1, "profile core: non conformant")


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_changed_byte_in_any_file_is_noticed(signed: Path, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(sorted(signed.iterdir())))
    whole = path.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != whole[place]))
    removed = data.draw(st.booleans())
    try:
        path.write_bytes(whole[:place] + (b"" if removed else bytes([byte])) + whole[place + 1 :])
        code, told = verify(signed)
    finally:
        path.write_bytes(whole)
    assert code == 1
    assert any(path.name in line or "signature" in line for line in told)
    assert verify(signed)[0] == 10  # it judges no profile, and is as it was


@pytest.mark.parametrize("name", [*names.REQUIRED, names.PUBLIC_KEY, names.ATTESTATION])
def test_a_file_that_is_missing_is_named(signed: Path, tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(signed, tmp_path / "out")
    (folder / name).unlink()
    code, told = verify(folder)
    assert code == 1
    assert any(name in line and ("missing" in line or "not there" in line) for line in told)


def test_an_extra_file_a_link_and_a_file_in_a_folder_are_named(signed: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(signed, tmp_path / "out")
    (folder / "more").mkdir()
    (folder / "more" / "extra.txt").write_text("")
    (folder / "link").symlink_to("more")
    told = verify(folder)[1]
    assert "more/extra.txt is not listed in SHA256SUMS" in told
    assert "link is a link: a certificate holds files only" in told


def forge_verdict(report: dict[str, Any]) -> dict[str, Any]:
    return {
        "profiles": {**report["profiles"], "core": {**report["profiles"]["core"], "verdict": "conformant"}}
    }


def forge_outcome(report: dict[str, Any]) -> dict[str, Any]:
    return {"tests": [{**test, "outcome": "passed", "failure": None} for test in report["tests"]]}


FORGERIES = {
    "a better verdict": (forge_verdict, "profile core: the report says conformant, from its results follows"),
    "better outcomes": (forge_outcome, "results.jsonl and the tests in report.json differ"),
    "a test left out": (lambda r: {"tests": r["tests"][1:]}, "has no result"),
    "a test too much": (
        lambda r: {"tests": [*r["tests"], result("a/test_b.py::test_c")]},
        "is not in must-pass",
    ),
    "a test twice": (lambda r: {"tests": [*r["tests"], r["tests"][0]]}, "has several results"),
    "no controls": (lambda _: {"controls": []}, "nothing shows that the tests could fail"),
    "a missed control": (lambda _: {"controls": [{"name": "x", "caught": False}]}, "x was not noticed"),
    "another device": (
        lambda r: {"implementation": {**r["implementation"], "device_names": ["better"]}},
        "implementation in report.json is not what the other files give",
    ),
    "another version": (lambda r: {"suite": {**r["suite"], "version": "9.9"}}, "pytest-vdist==9.9"),
    "another specification": (
        lambda r: {"suite": {**r["suite"], "spec_version": "1999.1"}},
        "specification 1999.1 is not known",
    ),
    "other requirements": (
        lambda r: {"suite": {**r["suite"], "requirements_digest": "0" * 64}},
        "the requirements are not those",
    ),
    "other suites": (
        lambda r: {"suite": {**r["suite"], "digest": "0" * 64}},
        "the tests that ran are not those of suite version",
    ),
    "another requirement": (
        lambda r: {"tests": [{**each, "requirements": ["VD-AR-001"]} for each in r["tests"]]},
        "has other requirements or another mode in session.json",
    ),
    "another claim": (
        lambda r: {"capabilities": {**r["capabilities"], "declared": {"device_failures": "abort"}}},
        "manifest.toml claims another device_failures than was tested",
    ),
    "a profile that is not named": (
        lambda _: {"profiles_not_judged": {}},
        "fault is a profile of which report.json does not say why it is not judged",
    ),
    "an end that is none": (
        lambda _: {"finished": 5},
        "finished: must be time or null, got 5",
    ),
    "another schema": (lambda _: {"schema": "vdist-report/2"}, "schema: must be 'vdist-report/1'"),
    "a word for a number": (
        lambda r: {"bandwidth": [{**r["bandwidth"][0], "bytes": "8"}]},
        "bandwidth[0].bytes",
    ),
    "a waiver for another reason": (
        lambda r: {"waivers": [{**r["waivers"][0], "reason": "the moon"}]},
        "the waivers in report.json are not those in waivers.toml",
    ),
    "a waiver that was stale": (
        lambda r: {"waivers": [{**r["waivers"][0], "state": "used", "in_error": False}]},
        "waivers in report.json is not what the other files give",
    ),
    "a session that ended": (
        lambda _: {"finished": "2026-11-22T12:14:32Z"},
        "finished in report.json is not what",
    ),
    "a day that there is not": (lambda _: {"started": "2026-02-31T00:00:00Z"}, "started must be a time, got"),
    "another page": (lambda _: {"seeds": {"programs": 7}}, "seeds in report.json is not what"),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forgery_with_fresh_sums_is_noticed(tmp_path: Path, forgery: str) -> None:
    tests = conformant_results()
    tests[0] |= {"outcome": "failed"}
    folder = write_folder(tmp_path / "out", tests, waivers=WAIVERS.format(expires="2999-01-01"))
    change, finding = FORGERIES[forgery]
    code, told = verify(with_report(folder, **change(names.read_report(folder))))
    assert code == 1
    assert any(finding in line for line in told), told


def test_a_page_that_says_something_else_is_noticed(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "out", conformant_results())
    page = folder / names.PAGE
    page.write_text(page.read_text().replace("Conformant", "Splendid"))
    write_sums(folder)
    assert verify(folder) == (1, ["report.html does not show what report.json says"])


def test_a_waiver_must_hold_on_the_day_of_the_run(tmp_path: Path) -> None:
    tests = conformant_results()
    waived = next(test for test in tests if test["requirements"] == ["VD-AR-001"])
    waived["outcome"] = "waived"
    good = write_folder(tmp_path / "good", tests, waivers=WAIVERS.format(expires="2026-11-22"))
    late = write_folder(tmp_path / "late", tests, waivers=WAIVERS.format(expires="2026-11-21"))
    assert verify(good)[1][0] == "profile core: conformant with waivers"
    code, told = verify(late)
    assert code == 1
    assert "the waiver of VD-AR-001 expired on 2026-11-21, the run was on 2026-11-22" in told
    none = write_folder(tmp_path / "none", tests)
    assert verify(none) == (1, [f"{waived['test']} is waived, and no waiver in waivers.toml covers it"])


def test_a_signature_speaks_for_the_vendors_key_only(signed: Path, tmp_path: Path) -> None:
    assert verify(signed, signed.parent / "key.pub")[0] == 10
    other = tmp_path / "other.pub"
    other.write_bytes(
        ed25519.Ed25519PrivateKey.generate()
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    code, told = verify(signed, other)
    assert code == 1
    assert "which is not" in told[0]


def test_a_signature_that_does_not_fit_is_noticed(signed: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(signed, tmp_path / "out")
    path = folder / names.ATTESTATION
    envelope = json.loads(path.read_text())
    first = envelope["signatures"][0]
    first["sig"] = ("B" if first["sig"][0] == "A" else "A") + first["sig"][1:]
    path.write_text(json.dumps(envelope, indent=1, sort_keys=True) + "\n")
    problem = "the signature in attestation.intoto.json does not fit what it signs"
    assert verify(folder) == (1, [problem])


def test_sums_that_say_the_same_in_another_way_are_noticed(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "out", conformant_results()[:3])
    path = folder / names.SUMS
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    told = verify(folder)[1]
    assert told == ["SHA256SUMS is not as it was written: its lines are out of order, repeated or malformed"]


def test_what_is_signed_is_an_in_toto_statement_about_the_report(signed: Path) -> None:
    import base64  # noqa: PLC0415

    envelope = json.loads((signed / names.ATTESTATION).read_text())
    statement = json.loads(base64.b64decode(envelope["payload"]))
    assert envelope["payloadType"] == "application/vnd.in-toto+json"
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://in-toto.io/attestation/test-result/v0.1"
    assert [subject["name"] for subject in statement["subject"]] == ["report.json", "SHA256SUMS"]
    assert len(statement["predicate"]["passedTests"]) == 40


def test_a_changed_folder_is_not_signed(
    signed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(signed, tmp_path / "out")
    (folder / names.COMMAND).write_text("pytest")
    assert cli.main(["sign", str(folder), "--key", str(signed.parent / "key.pem")]) == 4
    assert "command.txt has changed" in capsys.readouterr().err


def test_a_diff_names_what_fails_and_what_is_no_longer_tested(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = conformant_results(), conformant_results()
    old[4]["outcome"] = "failed"
    new[0]["outcome"] = "hang"
    new[1] |= {"outcome": "not_run", "world_sizes": []}
    old[2]["margin"], new[2]["margin"] = 0.1, 0.9
    slow = {"collective": "all_reduce", "bytes": 8, "ranks": 2, "latency_us": 9.0, "algbw": 1.0, "busbw": 1.0}
    a = write_folder(tmp_path / "a", old, bandwidth=[slow])
    b = write_folder(tmp_path / "b", new, bandwidth=[{**slow, "latency_us": 12.0}])
    assert cli.main(["diff", str(a), str(b / "report.json"), "--json"]) == 14
    found = json.loads(capsys.readouterr().out)
    assert found["newly_failing"] == [f"{new[0]['test']}: passed -> hang"]
    assert found["lost_coverage"] == [f"{new[1]['test']}: passed -> not_run"]
    assert found["fixed"] == [f"{new[4]['test']}: failed -> passed"]
    assert found["changed_margins"] == [f"{new[2]['test']}: 0.100 -> 0.900"]
    assert found["changed_speeds"] == ["all_reduce of 8 bytes on 2 ranks: 9.0 us -> 12.0 us, bus 1 -> 1 GB/s"]
    assert cli.main(["diff", str(a), str(a)]) == 0
    assert capsys.readouterr().out == "no differences\n"


def test_merged_jobs_are_judged_as_one_and_the_worse_outcome_counts(tmp_path: Path) -> None:
    tests = conformant_results()
    failing = {**tests[0], "outcome": "failed"}
    a = write_folder(tmp_path / "a", tests[:60])
    device = {"name": "reference", "backend": "cpu", "device_names": ["Example CPU 10"], "proof": {}}
    b = write_folder(tmp_path / "b", tests[50:], implementation=device)
    c = write_folder(tmp_path / "c", [failing])
    assert verify(a)[0] == verify(b)[0] == 10
    assert cli.main(["merge", str(tmp_path / "ab"), str(a), str(b)]) == 0
    assert verify(tmp_path / "ab") == (0, ["profile core: conformant", "profile numerics: conformant"])
    devices = names.read_report(tmp_path / "ab")["implementation"]["device_names"]
    assert devices == ["Example CPU 9", "Example CPU 10"]
    assert cli.main(["merge", str(tmp_path / "abc"), str(tmp_path / "ab"), str(c)]) == 0
    assert verify(tmp_path / "abc")[0] == 1
    outcomes = {test["test"]: test["outcome"] for test in names.read_report(tmp_path / "abc")["tests"]}
    assert len(outcomes) == len(tests)
    assert outcomes[failing["test"]] == "failed"


def test_results_of_ranks_that_shared_devices_give_way_to_others(tmp_path: Path) -> None:
    tests = conformant_results()
    alone = write_folder(tmp_path / "alone", tests)
    sharing = [{**each, "properties": {RANKS_PER_DEVICE: 2}} for each in tests]
    shared = write_folder(tmp_path / "shared", sharing, bandwidth=[])
    code, told = verify(shared)
    assert (code, told[:2]) == (
        10,
        ["profile core: incomplete", f"  tests whose ranks shared devices: {_count(shared, 'core')}"],
    )
    assert f"<li>tests whose ranks shared devices: {_count(shared, 'core')}</li>" in (
        shared / "report.html"
    ).read_text(encoding="utf-8")
    for number, order in enumerate(((alone, shared), (shared, alone))):
        out = tmp_path / f"out{number}"
        assert cli.main(["merge", str(out), *map(str, order)]) == 0
        assert verify(out)[0] == 0


def _count(folder: Path, profile: str) -> int:
    return sum(names.read_report(folder)["profiles"][profile]["counts"].values())


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {
                "suite": {
                    "version": "9",
                    "spec_version": "1",
                    "requirements_digest": "0" * 64,
                    "kill_score": None,
                }
            },
            "suite.version",
        ),
        (
            {"implementation": {"name": "other", "backend": "cpu", "device_names": [], "proof": {}}},
            "implementation.name",
        ),
        (
            {"capabilities": {"declared": {"order": "fixed"}, "observed": {}}},
            "capabilities.declared: accumulate, device_failures, order, repeatable;",
        ),
    ],
)
def test_reports_of_different_things_are_not_merged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], problem: str
) -> None:
    a = write_folder(tmp_path / "a", conformant_results()[:3])
    b = write_folder(tmp_path / "b", conformant_results()[3:6], **changes)
    assert cli.main(["merge", str(tmp_path / "out"), str(a), str(b)]) == 4
    assert f"{a} and {b} differ in {problem}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_changed_folder_is_not_merged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = (write_folder(tmp_path / name, conformant_results()[:3]) for name in "ab")
    (b / names.RESULTS).write_text("")
    assert cli.main(["merge", str(tmp_path / "out"), str(a), str(b)]) == 4
    assert "results.jsonl has changed" in capsys.readouterr().err
