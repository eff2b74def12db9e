"""Certifications of the reference on the CPU, by a few tests: what they leave, however they end."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_vdist import cli
from pytest_vdist.certificate import requirements
from pytest_vdist.certificate.report.schema import schema_problems
from pytest_vdist.certificate.report.sums import sums_problems
from pytest_vdist.certification import suite_source

REGISTRY = """
schema = "vdist-requirements/1"
spec_version = "2026.1"
[areas]
AR = "All-reduce"
AG = "All-gather"
BAR = "Barrier"
NUM = "Precision"
[profiles]
core = "c"
numerics = "n"
split = "s"
compile = "k"
[area_profiles]
AR = ["core"]
AG = ["core"]
BAR = ["core"]
NUM = ["numerics"]
[rationales]
AR = "r"
AG = "r"
BAR = "r"
NUM = "r"
""" + "".join(
    f'[{id_}]\nlevel = "MUST"\nchapter = "few"\nmin_world_size = 2\ntext = "t"\n'
    for id_ in ("VD-AR-001", "VD-AG-001", "VD-BAR-001", "VD-NUM-001")
)
SUITE = """
import os
import signal
import pytest
import torch

few = pytest.mark.vdist_world_size(min=2, max=2)

@few
@pytest.mark.vdist_requirement("VD-AR-001")
def test_sum(coordinator_run, world_size):
    def body(group):
        return group.all_reduce(torch.tensor([1.0 + group.rank], device=group.device)).item()
    assert coordinator_run(body, world_size=world_size) == [3.0, 3.0]

@few
@pytest.mark.vdist_requirement("VD-AG-001")
def test_gathered(coordinator_run, world_size):
    def body(group):
        return group.all_gather(torch.tensor([group.rank], device=group.device)).tolist()
    assert coordinator_run(body, world_size=world_size) == [[0, 1], [0, 1]]

@few
@pytest.mark.vdist_requirement("VD-BAR-001")
def test_barrier(coordinator_run, world_size, tmp_path):
    def body(group, folder):
        import threading
        path = f"{folder}/entered"
        if group.rank == 0:
            threading.Event().wait(0.5)
            open(path, "w").close()
        group.barrier()
        return os.path.exists(path)
    assert coordinator_run(body, str(tmp_path), world_size=world_size) == [True, True]
"""
FAILING = """
@pytest.mark.vdist_requirement("VD-BAR-001")
def test_wrong(coordinator_run):
    def body(group):
        assert group.rank == 0, "this rank is wrong"
    coordinator_run(body)
"""
ARGUMENTS = ("--vdist-backend=cpu", "--vdist-certify=out", "--vdist-profile=core", "-q")
WAIVERS = """
schema = "vdist-waivers/1"
[[waiver]]
requirement = "VD-BAR-001"
tests = ["few/test_few.py::test_wrong[*]"]
issue = "https://example.org/1"
owner = "me"
reason = "known"
expires = 2999-01-01
"""
pytestmark = pytest.mark.usefixtures("plain_sessions")


@pytest.fixture
def certify(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Write the suite, and return a function that certifies it with further tests and arguments."""
    shutil.copy(Path(__file__).parent / "tiny.py", pytester.path)
    (pytester.path / "requirements.toml").write_text(REGISTRY)
    (pytester.path / "suites" / "few").mkdir(parents=True)
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p tiny")
    monkeypatch.setenv("PYTHONPATH", str(pytester.path))

    def run(more: str, *arguments: str) -> pytest.RunResult:
        (pytester.path / "suites" / "few" / "test_few.py").write_text(SUITE + more)
        return pytester.runpytest_subprocess(
            "--vdist-backend=cpu",
            "--vdist-certify=out",
            "--vdist-profile=core",
            "-q",
            *arguments,
            timeout=300,
        )

    return run


@pytest.fixture
def tiny_registry(certify: Any, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have commands in this process judge by the registry and the suites that the certified sessions have."""
    monkeypatch.setattr(suite_source, "SUITES", pytester.path / "suites")
    monkeypatch.setattr(requirements, "REGISTRY_FILE", pytester.path / "requirements.toml")
    requirements.registry.cache_clear()
    yield
    monkeypatch.undo()
    requirements.registry.cache_clear()


def report_in(folder: Path) -> dict[str, Any]:
    found = json.loads((folder / "report.json").read_text())
    assert schema_problems(found) == []
    assert sums_problems(folder) == []
    return dict(found)


def test_a_certification_ends_in_a_verdict_and_a_folder_that_holds_what_it_rests_on(
    pytester: pytest.Pytester, certify: Any, tiny_registry: None
) -> None:
    (pytester.path / "w.toml").write_text(WAIVERS)
    elsewhere = pytester.path / "w.toml"
    result = certify(FAILING, f"--vdist-waivers={elsewhere}", f"--vdist-certify={pytester.path / 'out'}")
    result.stdout.fnmatch_lines(
        ["vdist: core: conformant with waivers (3 passed, 1 waived)", "control mutants: 3 of 3 noticed"]
    )
    assert result.ret == 0
    folder = pytester.path / "out"
    report = report_in(folder)
    assert report["profiles"]["core"]["verdict"] == "conformant_with_waivers"
    assert [each["outcome"] for each in report["tests"]] == ["passed", "passed", "passed", "waived"]
    waived = report["tests"][3]
    assert waived["failure"]["rank"] == 1
    assert "this rank is wrong" in waived["failure"]["headline"]
    assert waived["failure"]["reproduce"] == (
        "pytest --pyargs 'pytest_vdist.suites.few.test_few::test_wrong[cpu-new_group]' --vdist-backend=cpu"
    )
    assert waived["reason"] == "VD-BAR-001, https://example.org/1: known (me, until 2999-01-01)"
    assert [entry["state"] for entry in report["waivers"]] == ["used"]
    assert all(entry["caught"] for entry in report["controls"])
    proof = report["implementation"]["proof"]
    assert proof["process_group"] == "ProcessGroupGloo gloo"
    assert sum(proof["operations"].values()) > 0
    assert report["profiles_not_judged"]["numerics"] == "not asked for"
    sources = {entry["name"]: entry["source"] for entry in report["settings"]}
    assert (sources["--vdist-waivers"], sources["--vdist-seed"]) == ("command line", "default")
    must_pass = (folder / "must-pass.txt").read_text().split()
    assert must_pass == [each["test"] for each in report["tests"]]
    assert len(ET.parse(folder / "junit.xml").findall(".//testcase")) == 4
    assert (folder / "waivers.toml").read_text() == WAIVERS
    written = [path.read_text() for path in folder.iterdir()]
    for private in (pytester.path, sys.prefix, Path.home()):
        assert not [text for text in written if str(private) in text], private
    assert (folder / "command.txt").read_text().endswith(" --vdist-waivers=w.toml --vdist-certify=out\n")
    assert "suites/few/test_few.py:40: RanksFailedError" in waived["failure"]["text"]
    assert cli.main(["verify", str(folder)]) == 0
    again = certify(FAILING)
    assert again.ret == pytest.ExitCode.USAGE_ERROR
    again.stderr.fnmatch_lines(["ERROR: the folder out must be empty, it holds *"])


def test_shards_are_certified_apart_and_merged_into_the_verdict(
    pytester: pytest.Pytester, certify: Any, tiny_registry: None, capsys: pytest.CaptureFixture[str]
) -> None:
    (pytester.path / "w.toml").write_text(WAIVERS)
    for number in (1, 2):
        arguments = (f"--vdist-shard={number}/2", f"--vdist-certify=part{number}", "--vdist-waivers=w.toml")
        result = certify(FAILING, *arguments)
        assert result.ret == 0, result.stdout.str()
        result.stdout.fnmatch_lines(
            ["vdist: core: incomplete (* passed*)", "control mutants: 3 of 3 noticed"]
        )
    parts = [str(pytester.path / f"part{number}") for number in (1, 2)]
    shards = [report_in(Path(part))["shard"] for part in parts]
    assert [(shard["number"], shard["count"], shard["tests"]) for shard in shards] == [(1, 2, 4), (2, 2, 4)]
    assert [report_in(Path(part))["waivers"][0]["in_error"] for part in parts] == [False, False]
    assert cli.main(["merge", str(pytester.path / "out"), *parts]) == 0
    assert "core: conformant with waivers" in capsys.readouterr().out
    assert cli.main(["verify", str(pytester.path / "out")]) == 0
    report = report_in(pytester.path / "out")
    assert report["shard"] is None
    assert sorted(each["outcome"] for each in report["tests"]) == ["passed"] * 3 + ["waived"]
    assert report["waivers"][0]["state"] == "used"


def test_a_killed_session_loses_nothing_and_its_report_is_incomplete(
    pytester: pytest.Pytester, certify: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    killed = (
        '@pytest.mark.vdist_requirement("VD-AR-001")\n'
        "def test_killed(backend):\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert certify(killed).ret == -9
    folder = pytester.path / "out"
    assert len((folder / "results.jsonl").read_text().splitlines()) == 3
    assert cli.main(["report", str(folder)]) == 0
    assert "3 of 4 tests have a result; core: incomplete; see " in capsys.readouterr().out
    report = report_in(folder)
    assert report["finished"] is None
    assert [each["outcome"] for each in report["tests"]] == ["passed", "passed", "passed", "not_run"]
    assert report["profiles"]["core"]["incomplete_because"] == ["the session did not end"]
    assert '<skipped type="vdist.not_run"' in (folder / "junit.xml").read_text()
    assert cli.main(["report", str(folder)]) == 4
    assert "has a report already" in capsys.readouterr().err


def test_a_full_disk_ends_the_session_and_leaves_what_was_written(
    pytester: pytest.Pytester, certify: Any
) -> None:
    full = (
        '@pytest.mark.vdist_requirement("VD-AR-001")\n'
        "def test_disk_is_full_from_now_on(backend):\n"
        "    import resource\n"
        "    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
    )
    # Through a pipe: files cannot grow any more, pytester's copy of the output neither.
    (pytester.path / "suites" / "few" / "test_few.py").write_text(SUITE + full)
    result = subprocess.run(
        [sys.executable, "-m", "pytest", *ARGUMENTS],
        cwd=pytester.path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 3
    assert "! _pytest.outcomes.Exit: cannot write out/results.jsonl: " in result.stdout
    assert "what is there stays usable: make room and run `vdist report out`" in result.stdout
    folder = pytester.path / "out"
    assert len((folder / "results.jsonl").read_text().splitlines()) == 3
    assert cli.main(["report", str(folder)]) == 0
    assert report_in(folder)["profiles"]["core"]["verdict"] == "incomplete"


def test_a_file_system_without_room_ends_the_session_and_what_fitted_is_a_report_elsewhere(
    pytester: pytest.Pytester, certify: Any
) -> None:
    few = SUITE + "".join(
        f'@pytest.mark.vdist_requirement("VD-AR-001")\n'
        f'def test_{number}(backend): raise AssertionError("x" * 3000)\n'
        for number in range(30)
    )
    (pytester.path / "suites" / "few" / "test_few.py").write_text(few)
    out = pytester.mkdir("small")
    mounted = f"mount -t tmpfs -o size=64k none {out}"
    command = [sys.executable, "-m", "pytest", *ARGUMENTS, "--vdist-certify=small/cert"]
    script = f"{mounted} || exit 77; {shlex.join(command)}; code=$?; cp -r {out}/cert kept; exit $code"
    result = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script],
        cwd=pytester.path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if result.returncode in {1, 77} and "Operation not permitted" in result.stderr:
        pytest.skip(f"this machine mounts no file system for a user: {result.stderr.strip()}")
    assert result.returncode == 3, result.stdout + result.stderr
    assert re.search(r"cannot write small/cert/results\.jsonl: (No space|the disk took)", result.stdout)
    assert "stays usable: make room and run `vdist report small/cert`" in result.stdout
    kept = pytester.path / "kept"
    written = len((kept / "results.jsonl").read_text().splitlines())
    assert 0 < written < 33
    assert cli.main(["report", str(kept)]) == 0
    report = report_in(kept)
    assert [each["outcome"] for each in report["tests"]].count("not_run") == 33 - written
    assert report["profiles"]["core"]["incomplete_because"] == ["the session did not end"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-k", "sum"), "-k is refused with --vdist-certify, got 'sum'"),
        (("-x",), "-x or --maxfail is refused with --vdist-certify, got 1"),
        (("--deselect=a",), "--deselect is refused with --vdist-certify, got 'a'"),
        (("--lf",), "--lf is refused with --vdist-certify, got True"),
        (("-p", "no:cacheprovider"), "-p is refused with --vdist-certify, got 'no:cacheprovider'"),
        (("--junitxml=x",), "--junitxml is refused with --vdist-certify, got 'x'"),
        (("suites/few",), "paths are refused with --vdist-certify, got 'suites/few'"),
        (
            ("--vdist-backend=cpu,cuda",),
            "a certificate is about one device, got cpu, cuda from the command line",
        ),
        (
            ("--vdist-profile=cor",),
            "profile must be one of core, inference, ",
        ),
        (
            ("--vdist-waivers=no.toml",),
            "cannot read no.toml, got 'no.toml' from the command line: No such file",
        ),
        (
            ("--vdist-manifest=m.toml",),
            "m.toml: [device]: name must be the backend under test, cpu, got 'acme'",
        ),
    ],
)
def test_what_a_certification_refuses_is_a_usage_error_that_leaves_nothing(
    arguments: tuple[str, ...], message: str, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTEST_ADDOPTS")
    (pytester.path / "m.toml").write_text('schema = "vdist-manifest/1"\n[device]\nname = "acme"\n')
    (pytester.path / "suites" / "few").mkdir(parents=True)
    result = pytester.runpytest_inprocess("--vdist-backend=cpu", "--vdist-certify=out", *arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert message in " ".join((result.stderr.str() + result.stdout.str()).split())
    assert not (pytester.path / "out").exists()
