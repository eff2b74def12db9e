"""The templates for cluster managers start the sessions that they say, as far as one machine can tell."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from torch.distributed import run

from pytest_vdist.role import read_role

torchruns_options: Any = run.parse_args  # torch declares no types for it
TEMPLATES = Path(__file__).parent.parent / "docs" / "templates"
# Runs its command once for each task, as srun does, one after the other.
SRUN = """#!/usr/bin/env bash
shift
for node in 0 1; do for task in $(seq 0 $((SLURM_NTASKS_PER_NODE - 1))); do
    SLURM_NODEID=$node SLURM_LOCALID=$task SLURM_PROCID=$((node * SLURM_NTASKS_PER_NODE + task)) "$@" || exit
done; done
"""
SCONTROL = '#!/usr/bin/env bash\n[ "$*" = "show hostnames n[1-2]" ] && printf "n1\\nn2\\n"\n'
RECORD = """#!/usr/bin/env python3
import json, os, sys
with open(os.environ["RECORD"], "a") as file:
    file.write(json.dumps([sys.argv[1:], dict(os.environ)]) + "\\n")
"""


def run_on_slurm(template: str, program: str, tasks_per_node: int, folder: Path) -> list[Any]:
    """Run a batch script where Slurm's programs are played; return arguments and environment of its tasks."""
    path = TEMPLATES / template
    subprocess.run(["bash", "-n", path], check=True, timeout=60)
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL), (program, RECORD)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    if program == "python3":  # which the record itself needs
        (folder / name).write_text(RECORD.replace("/usr/bin/env python3", os.path.realpath("/proc/self/exe")))
    slurm = {"SLURM_JOB_NODELIST": "n[1-2]", "SLURM_JOB_ID": "41234", "SLURM_JOB_NUM_NODES": "2"}
    slurm |= {"SLURM_NTASKS": str(2 * tasks_per_node), "SLURM_NTASKS_PER_NODE": str(tasks_per_node)}
    record = folder / "record"
    environment = {**os.environ, **slurm, "PATH": f"{folder}:{os.environ['PATH']}", "RECORD": str(record)}
    subprocess.run(["bash", path], check=True, env=environment, timeout=120)
    return [json.loads(line) for line in record.read_text().splitlines()]


def check_session(pytester: pytest.Pytester, arguments: list[str]) -> None:
    """Check that the plugin understands the command line, and that it is one of the suites on CUDA."""
    config = pytester.parseconfig(*arguments)
    assert config.args == ["pytest_vdist.suites"]
    assert config.getoption("vdist_backend") == "cuda"
    assert config.getoption("pyargs")


def test_slurm_starts_torchrun_on_each_node(tmp_path: Path, pytester: pytest.Pytester) -> None:
    for number, (arguments, _) in enumerate(run_on_slurm("slurm-torchrun.sbatch", "torchrun", 1, tmp_path)):
        read = torchruns_options(arguments)
        assert (read.nnodes, read.node_rank, read.nproc_per_node) == ("2", number, "8")
        assert (read.master_addr, read.master_port) == ("n1", 20000 + 41234 % 20000)
        assert (read.module, read.training_script) == (True, "pytest")
        check_session(pytester, read.training_script_args)
    assert number == 1


def test_slurm_starts_the_processes_itself(tmp_path: Path, pytester: pytest.Pytester) -> None:
    tasks = run_on_slurm("slurm-srun.sbatch", "python3", 2, tmp_path)
    roles = [read_role(environment) for _, environment in tasks]
    assert [(role.rank, role.local_rank, role.node) for role in roles] == [
        (0, 0, 0),
        (1, 1, 0),
        (2, 0, 1),
        (3, 1, 1),
    ]
    assert {(role.world_size, role.local_world_size, role.master_addr) for role in roles} == {(4, 2, "n1")}
    for arguments, _ in tasks:
        assert arguments[:2] == ["-m", "pytest"]
        assert "--vdist-launcher=torchrun" in arguments
        check_session(pytester, arguments[2:])


def test_an_indexed_job_starts_torchrun_in_each_pod(pytester: pytest.Pytester) -> None:
    service, job = yaml.safe_load_all((TEMPLATES / "kubernetes-indexed-job.yaml").read_text())
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert service["metadata"]["name"] == pod["subdomain"]
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    assert container["command"] == ["bash", "-c"]
    (script,) = container["args"]
    words = shlex.split(script.replace("$JOB_COMPLETION_INDEX", "1"))
    assert words[:2] == ["exec", "torchrun"]
    read = torchruns_options(words[2:])
    assert (int(read.nnodes), read.node_rank) == (job["spec"]["completions"], 1)
    assert int(read.nproc_per_node) == container["resources"]["limits"]["nvidia.com/gpu"]
    assert read.master_addr == f"{job['metadata']['name']}-0.{service['metadata']['name']}"
    check_session(pytester, read.training_script_args)


def test_a_pytorchjob_leaves_the_options_to_the_operator(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = yaml.safe_load((TEMPLATES / "kubernetes-pytorchjob.yaml").read_text())
    for variable, value in (("PET_NNODES", "2"), ("PET_NPROC_PER_NODE", job["spec"]["nprocPerNode"])):
        monkeypatch.setenv(variable, value)
    for part in job["spec"]["pytorchReplicaSpecs"].values():
        (container,) = part["template"]["spec"]["containers"]
        program, *arguments = container["command"]
        read = torchruns_options(arguments)
        assert (program, read.nnodes, read.training_script) == ("torchrun", "2", "pytest")
        assert int(read.nproc_per_node) == container["resources"]["limits"]["nvidia.com/gpu"]
        check_session(pytester, read.training_script_args)
