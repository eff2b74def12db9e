"""`vdist matrix`, and the templates of pipelines: their lines run against the real commands."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from pytest_vdist import cli
from pytest_vdist.certificate.report.folder import read_report
from pytest_vdist.certificate.report.jobs import jobs
from pytest_vdist.certificate.report.shards import shard_entry
from pytest_vdist.options.parsers import shard
from tests.certificate.sample_reports import conformant_results, write_folder

TEMPLATES = Path(__file__).parents[2] / "docs" / "templates" / "ci"

# Of the releases v3, which is being published, v2 without a certificate, and v1, which has one.
GH = """#!/bin/sh
echo "$@" >> {folder}/gh.log
case "$1 $2 $3" in
"release list "*) echo v3; echo v2; echo v1 ;;
"release download v1") cp {folder}/old.zip "$5" ;;
"release upload v3") test -s "$4" ;;
*) exit 1 ;;
esac
"""


def load(name: str) -> Any:
    return yaml.safe_load((TEMPLATES / name).read_text(encoding="utf-8"))


def run_lines(lines: str, folder: Path, **variables: str) -> None:
    """Run lines of a template with the `vdist` of this environment, and a `gh` that has two releases."""
    tools = folder / "tools"
    tools.mkdir(exist_ok=True)
    code = "import sys; from pytest_vdist.cli import main; sys.exit(main())"
    (tools / "vdist").write_text(f"#!/bin/sh\nexec {sys.executable} -c '{code}' \"$@\"\n")
    (tools / "gh").write_text(GH.format(folder=folder))
    (tools / "python3").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    for tool in tools.iterdir():
        tool.chmod(0o755)
    subprocess.run(
        ["bash", "-e", "-c", lines],
        cwd=folder,
        env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", **variables},
        check=True,
        timeout=120,
    )


def parts(folder: Path) -> None:
    """Write what three jobs of a device leave, two of them shards."""
    tests = conformant_results()
    names = [each["test"] for each in tests]
    for number in (1, 2):
        write_folder(folder / f"core-{number}", tests[number - 1 :: 2], shard=shard_entry(number, 2, names))
    write_folder(folder / "numerics", tests)


def steps(job: dict[str, Any]) -> list[str]:
    return [step["run"] for step in job["steps"] if "run" in step and not step["run"].startswith("pip ")]


def test_the_plan_of_github_is_a_matrix_of_certifications(tmp_path: Path) -> None:
    workflow = load("github-actions.yml")
    output = tmp_path / "output"
    (plan,) = steps(workflow["jobs"]["plan"])
    run_lines(plan, tmp_path, GITHUB_OUTPUT=str(output), **workflow["env"])
    said = dict(line.split("=", 1) for line in output.read_text().splitlines())
    planned = json.loads(said["jobs"])["include"]
    assert json.loads(said["backends"]) == ["cpu", "cuda"]
    assert [job["name"] for job in planned][:3] == ["cpu-core-1of2", "cpu-core-2of2", "cpu-numerics-1of2"]
    assert len(planned) == len({job["name"] for job in planned}) == 16
    assert [job["arguments"].split()[-1] for job in planned] == ["--vdist-shard=1/2", "--vdist-shard=2/2"] * 8
    assert all(job["arguments"].startswith(f"--vdist-backend={job['backend']} ") for job in planned)


def test_github_merges_verifies_compares_and_publishes(tmp_path: Path) -> None:
    parts(tmp_path / "parts")
    old = write_folder(tmp_path / "old", conformant_results(), started="2026-11-01T12:00:00Z")
    with zipfile.ZipFile(tmp_path / "old.zip", "w") as archive:
        for path in old.iterdir():
            archive.write(path, path.name)
    summary = tmp_path / "summary"
    for lines in steps(load("github-actions.yml")["jobs"]["judge"]):
        run_lines(lines, tmp_path, BACKEND="cpu", TAG="v3", GITHUB_STEP_SUMMARY=str(summary))
    assert read_report(tmp_path / "certificate")["profiles"]["core"]["verdict"] == "conformant"
    assert read_report(tmp_path / "baseline")["started"] == "2026-11-01T12:00:00Z"
    assert summary.read_text() == "no differences\n"
    published = zipfile.ZipFile(tmp_path / "certificate-cpu.zip")
    assert published.read("report.html") == (tmp_path / "certificate" / "report.html").read_bytes()
    asked = [line.split()[:3] for line in (tmp_path / "gh.log").read_text().splitlines()]
    assert [" ".join(words[1:]) for words in asked] == [
        "list --exclude-drafts",
        "download v2",
        "download v1",
        "upload v3",
    ]


def test_the_jobs_of_gitlab_are_shards_that_make_up_a_whole() -> None:
    (matrix,) = load("gitlab-ci.yml")["certify"]["parallel"]["matrix"]
    found = [shard(text) for text in matrix["SHARD"]]
    assert [each.number for each in found] == list(range(1, found[0].count + 1))
    assert {each.count for each in found} == {len(found)}


def test_gitlab_merges_verifies_and_compares(tmp_path: Path) -> None:
    parts(tmp_path / "parts" / "cpu")
    write_folder(tmp_path / "baseline" / "cpu", conformant_results())
    for lines in load("gitlab-ci.yml")["judge"]["script"]:
        run_lines(lines, tmp_path, BACKEND="cpu")
    run_lines(load("gitlab-ci.yml")["pages"]["script"][0], tmp_path)
    assert (tmp_path / "public" / "cpu" / "report.html").is_file()


@pytest.mark.parametrize("job", ["github", "gitlab"])
def test_the_line_that_certifies_has_options_that_exist(job: str, pytester: pytest.Pytester) -> None:
    if job == "github":
        (line,) = steps(load("github-actions.yml")["jobs"]["certify"])
        (planned, *_) = jobs("cpu", "both", "all", "core", shards=2)
        arguments = planned["arguments"]
        line = line.replace("${{ matrix.arguments }}", arguments)
    else:
        (line,) = load("gitlab-ci.yml")["certify"]["script"]
        line = line.replace("$BACKEND", "cpu").replace("$PROFILE-${SHARD%/*}", "core-1")
        line = line.replace("$PROFILE", "core").replace("$SHARD", "1/2")
        assert "$" not in line
    words = line.split()
    assert words[0] == "pytest"
    result = pytester.runpytest_subprocess("-k", "nothing", *words[1:])
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*-k is refused with --vdist-certify*"])


def test_jobs_are_the_product_of_the_modes(capsys: pytest.CaptureFixture[str]) -> None:
    line = ["matrix", "--backend=cpu,cuda", "--split-group=both", "--compile=eager,inductor"]
    assert cli.main(line) == 0
    include = json.loads(capsys.readouterr().out)["include"]
    assert len(include) == len({job["name"] for job in include}) == 8
    assert include[3] == {
        "name": "cpu-split_group-inductor",
        "backend": "cpu",
        "arguments": "--vdist-backend=cpu --vdist-split-group=on --vdist-compile=inductor",
    }


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        ("--split-group=maybe", "--split-group must be off, on or both, got 'maybe'"),
        ("--compile=eager,jit", "--compile must hold names among eager"),
        ("--backend=cpu,cpu", "--backend must not repeat, got 'cpu,cpu'"),
        ("--shards=0", "--shards must be a whole number from 1 to 256, got 0"),
        ("--profile=cor", "--profile must hold names among core"),
    ],
)
def test_an_unknown_value_is_refused(option: str, problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["matrix", option]) == 4
    assert re.match(f"vdist matrix: {re.escape(problem)}", capsys.readouterr().err)
