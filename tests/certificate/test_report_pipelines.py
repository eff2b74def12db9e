"""`vdist matrix`, and the templates of pipelines: their lines run against the real commands."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pytest_vdist import cli
from pytest_vdist.certificate.report.folder import read_report
from tests.certificate.sample_reports import conformant_results, write_folder

TEMPLATES = Path(__file__).parents[2] / "docs" / "templates" / "ci"


def load(name: str) -> Any:
    return yaml.safe_load((TEMPLATES / name).read_text(encoding="utf-8"))


def run_lines(lines: str, folder: Path, **variables: str) -> None:
    """Run lines of a template with the `vdist` of this environment, and a `gh` that finds no release."""
    tools = folder / "tools"
    tools.mkdir(exist_ok=True)
    code = "import sys; from pytest_vdist.cli import main; sys.exit(main())"
    (tools / "vdist").write_text(f"#!/bin/sh\nexec {sys.executable} -c '{code}' \"$@\"\n")
    (tools / "gh").write_text("#!/bin/sh\nexit 1\n")  # there is no earlier release
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
    """Write what two jobs of a device leave."""
    tests = conformant_results()
    write_folder(folder / "core", tests)
    write_folder(folder / "numerics", tests)


def steps(job: dict[str, Any]) -> list[str]:
    return [step["run"] for step in job["steps"] if "run" in step and not step["run"].startswith("pip ")]


def test_the_plan_of_github_is_a_matrix_of_certifications(tmp_path: Path) -> None:
    workflow = load("github-actions.yml")
    output = tmp_path / "output"
    (plan,) = steps(workflow["jobs"]["plan"])
    run_lines(plan, tmp_path, GITHUB_OUTPUT=str(output), **workflow["env"])
    said = dict(line.split("=", 1) for line in output.read_text().splitlines())
    jobs = json.loads(said["jobs"])["include"]
    assert json.loads(said["backends"]) == ["cpu", "cuda"]
    assert [job["name"] for job in jobs][:5] == [
        "cpu-core",
        "cpu-numerics",
        "cpu-split",
        "cpu-compile",
        "cuda-core",
    ]
    assert all(job["arguments"].startswith(f"--vdist-backend={job['backend']} ") for job in jobs)


def test_github_merges_verifies_and_compares(tmp_path: Path) -> None:
    parts(tmp_path / "parts")
    for lines in steps(load("github-actions.yml")["jobs"]["judge"]):
        run_lines(lines, tmp_path, BACKEND="cpu", GITHUB_STEP_SUMMARY=str(tmp_path / "summary"))
    assert read_report(tmp_path / "certificate")["profiles"]["core"]["verdict"] == "conformant"


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
        arguments = "--vdist-backend=cpu --vdist-split-group=both --vdist-compile=all --vdist-profile=core"
        line = line.replace("${{ matrix.arguments }}", arguments)
    else:
        (line,) = load("gitlab-ci.yml")["certify"]["script"]
        line = line.replace("$BACKEND", "cpu").replace("$PROFILE", "core")
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
        ("--profile=cor", "--profile must hold names among core"),
    ],
)
def test_an_unknown_value_is_refused(option: str, problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["matrix", option]) == 4
    assert re.match(f"vdist matrix: {re.escape(problem)}", capsys.readouterr().err)
