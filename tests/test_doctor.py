"""`vdist doctor`: it tells the truth about this machine, and each check finds what it is there to find."""

from __future__ import annotations

import itertools
import json
import os
import re
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from importlib import metadata
from pathlib import Path

import pytest
import torch

from pytest_vdist import Availability, doctor
from pytest_vdist.backends import cpu, cuda
from pytest_vdist.doctor import machine, network, sessions, software, trial
from pytest_vdist.doctor.findings import Check, Finding, perform
from pytest_vdist.doctor.machine import GIB, MIB
from pytest_vdist.doctor.sessions import Process
from pytest_vdist.doctor.trial import Trial
from pytest_vdist.ranks.failures import RanksUnavailableError

UNLIMITED = resource.RLIM_INFINITY
NO_GROUP = Path("/nonexistent")
SERVER = (
    "/usr/bin/python3.11 -c from multiprocess.forkserver import main; main(5, ['pytest_vdist.ranks.worker'])"
)
GOOD = Trial(ranks=2, start=1.0, all_reduce=0.001, sums=(3.0, 3.0), timeout=0.3, split="")


def run_doctor(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from pytest_vdist.cli import main; raise SystemExit(main())", "doctor"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("VDIST_")}
    return subprocess.run(
        [*command, *arguments],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_a_real_run_tells_of_every_subject_in_aligned_lines() -> None:
    result = run_doctor()
    listed, _, end = result.stdout.partition("\n\n")
    lines = listed.splitlines()
    for name in (
        "Python",
        "torch",
        "process-group backends",
        "groups",
        "C++ compiler",
        "kernel features",
        "memory",
        "cores",
        "shared memory",
        "open files (ulimit -n)",
        "processes (ulimit -u)",
        "core files (ulimit -c)",
        "loopback",
        "name of 127.0.0.1",
        "name of ::ffff:127.0.0.1",
        "leftover processes",
        "leased devices",
        "device cpu",
        "device cuda",
        "device xpu",
        "ranks on cpu",
    ):
        assert sum(line.startswith(f"{name:<24} ") for line in lines) == 1, f"{name} in {result.stdout}"
    (of_torch,) = (line for line in lines if line.startswith("torch "))
    assert torch.__version__ in of_torch
    (of_ranks,) = (line for line in lines if line.startswith("ranks on cpu"))
    assert re.search(
        r" 2 ready in \d+\.\d s, all_reduce in \d+\.\d ms, a group's timeout of 0.3 s ends", of_ranks
    )
    assert result.stderr == ""
    assert result.returncode == (0 if end.strip() == "no problems" else 1)


def test_json_has_the_same_findings_and_a_wrong_variable_makes_the_exit_code_1() -> None:
    result = run_doctor("--json", VDIST_TIMEOT="5")
    report = json.loads(result.stdout)
    assert result.returncode == 1
    assert report["ok"] is False
    findings = {found["name"]: found for found in report["findings"]}
    assert len(findings) == len(report["findings"])
    assert {tuple(found) for found in report["findings"]} == {("name", "value", "problem", "remedy")}
    assert "unknown variable, got 'VDIST_TIMEOT'" in findings["VDIST_TIMEOT"]["problem"]
    assert "did you mean VDIST_TIMEOUT?" in findings["VDIST_TIMEOT"]["problem"]
    assert findings["ranks on cpu"]["problem"] is None


def test_the_exit_code_is_that_of_the_findings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [Finding("a", "1"), Finding("b", "2", remedy="get it")]
    monkeypatch.setattr(
        doctor,
        "checks_of_this_machine",
        lambda: [Check(f.name, partial(Finding, **asdict(f))) for f in found],
    )
    assert doctor.main(as_json=False) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{'a':<24} 1",
        f"{'b':<24} 2; to change that, get it",
        "",
        "no problems",
    ]
    found.append(Finding("c", "3", "is odd", "make it even"))
    assert doctor.main(as_json=False) == 1
    assert capsys.readouterr().out.splitlines()[2:] == [
        f"{'c':<24} 3 (!)",
        "",
        "1 problem:",
        "c: is odd",
        "  make it even",
    ]
    assert doctor.main(as_json=True) == 1
    assert json.loads(capsys.readouterr().out) == {
        "ok": False,
        "findings": [
            {"name": "a", "value": "1", "problem": None, "remedy": None},
            {"name": "b", "value": "2", "problem": None, "remedy": "get it"},
            {"name": "c", "value": "3", "problem": "is odd", "remedy": "make it even"},
        ],
    }


def test_a_check_that_never_ends_is_a_problem_at_its_deadline() -> None:
    never = threading.Event()
    started = time.monotonic()
    found = perform(Check("stuck", lambda: Finding("stuck", str(never.wait())), 0.05, "hit it"))
    assert found == Finding("stuck", "no answer", "there was no answer within 0.05 s", "hit it")
    assert time.monotonic() - started < 2
    never.set()


def test_a_check_that_holds_the_gil_ends_the_command_with_its_stack() -> None:
    program = """
import ctypes
from pytest_vdist import doctor
from pytest_vdist.doctor.findings import Check, Finding

def stuck_in_driver():
    ctypes.PyDLL(None).sleep(60)

doctor._LAST_DEADLINE = 0.5
checks = [Check("a", lambda: Finding("a", "1")), Check("b", stuck_in_driver, 0.1)]
doctor.checks_of_this_machine = lambda: checks
raise SystemExit(doctor.main(as_json=False))
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False
    )
    assert result.returncode == 1
    assert result.stdout == f"{'a':<24} 1\n"
    assert "in stuck_in_driver" in result.stderr


def test_a_check_that_raises_is_a_problem_and_the_others_go_on() -> None:
    def broken() -> Finding:
        message = "no such luck"
        raise ValueError(message)

    shown: list[Finding] = []
    found = doctor.examine([Check("a", broken), Check("b", lambda: Finding("b", "fine"))], shown.append)
    assert [f.name for f in found] == ["a", "b"]
    assert found == shown
    assert found[0].problem == "the check itself failed with ValueError: no such luck"
    assert found[1].problem is None


@pytest.mark.parametrize(
    "found",
    [
        machine.python((3, 12, 1), "/usr/bin/python", "linux"),
        machine.kernel_features({}),
        machine.memory(64 * GIB, 32 * GIB, None),
        machine.memory(64 * GIB, 32 * GIB, 8 * GIB),
        machine.cores(2, 1, 0.5),
        machine.shared_memory(8 * GIB, GIB, writable=True),
        machine.open_files(1024, 4096),
        machine.open_files(UNLIMITED, UNLIMITED),
        machine.processes(4096, 4096, None),
        machine.processes(UNLIMITED, UNLIMITED, 1000),
        machine.core_files(0),
        machine.core_files(UNLIMITED),
        network.loopback(["lo", "eth0"], lambda: 0.001),
        software.libraries(lambda name: "1.0"),
        software.process_group_backends({"gloo": True, "nccl": False}),
        software.compiler(None, "", asked_for=False),
        software.compiler("/usr/bin/g++", "g++ 12", asked_for=True),
        software.devices(cuda.BACKEND, Availability(0, "x", "y"), "", asked_for=False),
        software.devices(cpu.BACKEND, Availability(2, "x", "y"), "gloo", asked_for=True),
        trial.ranks("cpu", lambda: GOOD),
    ],
    ids=lambda found: found.name,
)
def test_what_is_fine_is_no_problem(found: Finding) -> None:
    assert found.problem is None
    assert found.value


@pytest.mark.parametrize(
    ("found", "problem", "remedy"),
    [
        (
            machine.python((3, 11, 0), "python", "darwin"),
            "ranks need Linux, this is darwin",
            "Linux container",
        ),
        (
            machine.kernel_features({"pidfd": "Function not implemented"}),
            "lacks pidfd: Function not implemented",
            "Linux 5.3",
        ),
        (machine.memory(64 * GIB, GIB, None), "memory for about 17 ranks, not for 64", "end other programs"),
        (machine.memory(64 * GIB, 32 * GIB, GIB), "memory for about 17 ranks", "limit of the container"),
        (
            machine.shared_memory(64 * MIB, 64 * MIB, writable=True),
            "/dev/shm has 64 MiB free",
            "--shm-size=1g",
        ),
        (machine.shared_memory(GIB, GIB, writable=False), "/dev/shm is not writable", "mode 1777"),
        (machine.shared_memory_here("/nonexistent"), "there is no /nonexistent", "mount a tmpfs"),
        (machine.open_files(256, 4096), "(ulimit -n) of 256 is too low for 64 ranks", "ulimit -n 704"),
        (machine.open_files(256, 512), "of 256 is too low", "hard limit, now 512, to 704"),
        (machine.processes(200, UNLIMITED, None), "(ulimit -u) of 200 is too low for 64", "ulimit -u 384"),
        (machine.processes(UNLIMITED, UNLIMITED, 100), "of 100 is too low", "--pids-limit"),
        (network.loopback(["eth0"], lambda: 0.0), "there is no interface lo", "ip link set lo up"),
        (software.process_group_backends({}), "no torch.distributed", "USE_DISTRIBUTED=1"),
        (software.process_group_backends({"gloo": False, "nccl": True}), "has no gloo", "USE_GLOO=1"),
        (software.compiler(None, "", asked_for=True), "inductor was asked for", "install g++"),
        (
            software.devices(cuda.BACKEND, Availability(0, "it", "buy one"), "", asked_for=True),
            "VDIST_BACKEND asks for cuda, which has no device here",
            "buy one",
        ),
    ],
)
def test_what_is_wrong_is_named_with_a_remedy(found: Finding, problem: str, remedy: str) -> None:
    assert found.problem is not None
    assert problem in found.problem
    assert remedy in (found.remedy or "")


def test_values_tell_numbers_and_how_many_ranks_they_are_enough_for() -> None:
    assert machine.memory(64 * GIB, 32 * GIB, None).value == (
        "32.0 GiB of 64.0 GiB available; for about 546 ranks on the CPU"
    )
    assert (
        machine.cores(8, 4, 1.5).value == "8, this process may use 4, the control group allows 1.5 at a time"
    )
    assert machine.open_files(1024, 4096).value == "1024, for about 99 ranks"
    assert (
        machine.processes(UNLIMITED, UNLIMITED, 1064).value
        == "1064, for about 200 ranks, by the control group"
    )
    assert machine.processes(500, 500, 1000).value == "500, for about 87 ranks"
    assert machine.core_files(3 * MIB).value == "up to 3 MiB, for each rank that crashes"


def test_limits_of_the_control_group_are_read(tmp_path: Path) -> None:
    meminfo = f"MemTotal: {64 * GIB >> 10} kB\nMemFree: 1 kB\nMemAvailable: {32 * GIB >> 10} kB\n"
    assert "control group" not in machine.memory_here(meminfo, NO_GROUP).value
    for name, text in {
        "memory.max": f"{6 * GIB}\n",
        "memory.current": f"{2 * GIB}\n",
        "cpu.max": "150000 100000\n",
        "pids.max": "100\n",
    }.items():
        (tmp_path / name).write_text(text)
    assert "4.0 GiB left by the control group" in machine.memory_here(meminfo, tmp_path).value
    assert "allows 1.5 at a time" in machine.cores_here(tmp_path).value
    assert "by the control group" in machine.processes_here(tmp_path).value
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "pids.max").write_text("max\n")
    assert "control group" not in machine.cores_here(tmp_path).value
    assert "control group" not in machine.processes_here(tmp_path).value


def test_a_kernel_feature_that_does_not_work_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.missing_kernel_features() == {}

    def refuse(*_: object) -> int:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(os, "memfd_create", refuse)
    monkeypatch.delattr(os, "pidfd_open")
    monkeypatch.setattr(machine, "_LIFELINE_PROGRAM", "import os, sys; os.write(1, b'r'); sys.stdin.read()")
    assert list(machine.missing_kernel_features()) == ["memfd", "pidfd", "F_SETSIG"]
    assert "ranks may outlive" in machine.missing_kernel_features()["F_SETSIG"]


def test_a_loopback_without_connection_is_a_problem() -> None:
    def refused() -> float:
        raise ConnectionRefusedError(111, "Connection refused")

    found = network.loopback(["lo"], refused)
    assert found.problem == "a connection to 127.0.0.1 fails: [Errno 111] Connection refused"


@pytest.mark.parametrize(("seconds", "slow"), [(0.4, False), (5.0, True)])
@pytest.mark.parametrize("named", [True, False], ids=["named", "nameless"])
def test_only_a_slow_look_up_is_a_problem(seconds: float, slow: bool, named: bool) -> None:
    def look_up(address: tuple[str, int], flags: int) -> tuple[str, str]:
        if not named:
            raise OSError(-3, "Temporary failure in name resolution")
        return "localhost", "1"

    times = itertools.count(0.0, seconds)
    found = network.name_look_up("::ffff:127.0.0.1", look_up, lambda: next(times))
    assert found.value.startswith("localhost in" if named else "no name (")
    assert (found.problem is not None) is slow
    if slow:
        assert found.problem == (
            "the look-up of ::ffff:127.0.0.1 takes 5.0 s, and init_process_group does it for each rank"
        )
        assert "'::ffff:127.0.0.1 localhost' to /etc/hosts" in (found.remedy or "")


def sessions_of(*processes: Process) -> Finding:
    return sessions.leftovers(processes, still_alive=lambda pids: pids)


def test_ranks_of_a_session_at_work_are_no_leftovers() -> None:
    controller = Process(10, 9, "/usr/bin/python3 -m pytest")
    script = Process(20, 9, "/venv/bin/pytest tests")
    started = [
        Process(11, 10, SERVER),
        Process(12, 11, SERVER),
        Process(13, 11, SERVER),
        Process(21, 20, SERVER),
    ]
    found = sessions_of(Process(1, 0, "/sbin/init"), Process(9, 1, "bash"), controller, script, *started)
    assert found == Finding("leftover processes", "none; sessions at work: 2")
    assert sessions_of(Process(1, 0, "/sbin/init")).value == "none"


@pytest.mark.parametrize("heir", ["/sbin/init", "/usr/lib/systemd/systemd --user", "sleep infinity"])
def test_a_fork_server_that_init_has_inherited_is_a_leftover_and_so_are_its_ranks(heir: str) -> None:
    found = sessions_of(Process(1, 0, heir), Process(12, 11, SERVER), Process(11, 1, SERVER))
    assert found.problem == "sessions that have ended left processes: 11 12"
    assert found.remedy == "kill -9 11 12"


def test_processes_that_end_at_once_are_no_leftovers() -> None:
    waiting = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    with (
        subprocess.Popen(waiting, stdin=subprocess.PIPE) as ending,
        subprocess.Popen(waiting, stdin=subprocess.PIPE) as staying,
    ):
        assert ending.stdin is not None
        pids = [ending.pid, staying.pid]
        assert sessions.still_alive(pids, patience=0.0) == pids
        ending.stdin.close()
        assert sessions.still_alive([ending.pid], patience=30.0) == []
        assert sessions.still_alive(pids, patience=0.1) == [staying.pid]
        ending.wait(30)
        assert sessions.still_alive(pids, patience=0.1) == [staying.pid]


def test_a_real_fork_server_without_its_session_is_found() -> None:
    """A process with the command line of a fork server, whose parent is no Python program."""
    pretend = f"# {SERVER}\nimport sys\nprint(1, flush=True)\nsys.stdin.read()"
    with subprocess.Popen(
        ["sh", "-c", '"$0" -c "$1"; exit', sys.executable, pretend],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as shell:
        assert shell.stdout is not None
        assert shell.stdout.readline() == b"1\n"
        found = sessions.leftovers(sessions.running_processes(), lambda pids: pids)
        (child,) = (p.pid for p in sessions.running_processes() if p.parent == shell.pid)
        shell.communicate()
    assert found.problem is not None
    assert str(child) in found.problem.split()


def test_leases_of_this_user_are_counted_by_kind() -> None:
    sockets = "\n".join(
        f"0000: 00000002 00000000 00010000 0001 01 {inode} {name}"
        for inode, name in enumerate(
            [
                "@pytest-vdist/7/cpu/0",
                "@pytest-vdist/7/cpu/1",
                "@pytest-vdist/7/cuda/3",
                "@pytest-vdist/7/xpu/0/0",  # shared by two runs
                "@pytest-vdist/7/xpu/0/1",
                "@pytest-vdist/7/cpu/turnstile",
                "@pytest-vdist/8/cpu/2",
                "/run/other",
            ]
        )
    )
    assert sessions.leases(sockets, user=7).value == "2 of cpu, 1 of cuda, 1 of xpu"
    assert sessions.leases(sockets, user=9).value == "none"


def test_a_library_that_is_not_installed_is_a_problem() -> None:
    def version_of(name: str) -> str:
        if name == "multiprocess":
            raise metadata.PackageNotFoundError(name)
        return "1.0"

    found = software.libraries(version_of)
    assert found.problem == "not installed: multiprocess"
    assert "pytest 1.0" in found.value


def test_a_torch_build_is_described_by_its_toolkits() -> None:
    found = software.torch_version("2.13.0", "/x/torch/__init__.py", {"cuda": "12.9", "hip": None})
    assert found.value == "2.13.0, built for cuda 12.9 (/x/torch)"


@pytest.mark.parametrize(
    ("signatures", "value"),
    [
        (
            {"new_group": ["timeout"], "split_group": ["timeout", "backend"]},
            "new_group with timeout=; split_group with timeout=, with backend=",
        ),
        (
            {"new_group": ["timeout"], "split_group": ["timeout"]},
            "new_group with timeout=; split_group with timeout=, without backend=",
        ),
        ({"new_group": []}, "new_group without timeout=; split_group not there"),
    ],
)
def test_what_torch_offers_for_groups_is_told(signatures: Mapping[str, list[str]], value: str) -> None:
    assert software.offers(signatures).value == value


@pytest.mark.parametrize(
    ("compile_modes", "wrong"), [("", False), ("eager", False), ("eager,inductor", True), ("all", True)]
)
def test_a_missing_compiler_is_a_problem_if_inductor_is_asked_for(compile_modes: str, wrong: bool) -> None:
    found = software.compiler_here({"CXX": "no-such-compiler", "VDIST_COMPILE": compile_modes})
    assert (found.problem is not None) is wrong
    assert found.value == "none"


def test_a_backend_that_cannot_be_loaded_is_a_problem() -> None:
    usable: list[str] = []
    found = software.device_backend("nosuch", {}, usable)
    assert "unknown backend, got 'nosuch'" in (found.problem or "")
    assert usable == []


def test_a_backend_with_devices_is_usable() -> None:
    usable: list[str] = []
    found = software.device_backend("cpu", {"VDIST_BACKEND": "cpu"}, usable)
    assert found.value == f"{os.cpu_count()} cores, gloo of torch {metadata.version('torch')}"
    assert usable == ["cpu"]


def test_only_variables_that_decide_how_ranks_run_are_listed() -> None:
    environment = dict.fromkeys(
        ["NCCL_DEBUG", "HOME", "MASTER_PORT", "VDIST_X", "OMP_NUM_THREADS", "RANKED", "TORCH_LOGS"], ""
    )
    assert software.relevant_variables(environment) == [
        "MASTER_PORT",
        "NCCL_DEBUG",
        "OMP_NUM_THREADS",
        "TORCH_LOGS",
        "VDIST_X",
    ]


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("VDIST_TIMEOUT", "5", None),
        (
            "VDIST_TIMEOUT",
            "soon",
            "timeout must be a number of seconds greater than 0 and at most 86400 (a day), got 'soon'",
        ),
        ("VDIST_NOPE", "1", "unknown variable, got 'VDIST_NOPE'"),
        ("OMP_NUM_THREADS", "2", None),
        ("OMP_NUM_THREADS", "1", None),
        ("OMP_NUM_THREADS", "3", "is for each rank, and there are 4 cores"),
        ("OMP_NUM_THREADS", "many", "OMP_NUM_THREADS=many"),
        ("GLOO_SOCKET_IFNAME", "lo", None),
        ("GLOO_SOCKET_IFNAME", "eth7", "there is no interface eth7, only lo, eth0"),
        ("TORCH_DISTRIBUTED_DEBUG", "INFO", None),
        ("TORCH_DISTRIBUTED_DEBUG", "detail", "torch wraps every backend"),
        ("MASTER_ADDR", "10.0.0.1", None),
    ],
)
def test_a_variable_is_shown_and_judged(name: str, value: str, problem: str | None) -> None:
    found = software.variable(name, value, cores=4, interfaces=["lo", "eth0"])
    assert (found.name, found.value) == (name, value)
    assert (found.problem is None) if problem is None else (problem in (found.problem or ""))


def raising(error: Exception) -> Callable[[], Trial]:
    def run() -> Trial:
        raise error

    return run


@pytest.mark.parametrize(
    ("run", "problem"),
    [
        (
            raising(RanksUnavailableError("rank 1 of 2 could not be started: SIGSEGV", [])),
            "rank 1 of 2 could not",
        ),
        (lambda: Trial(2, 1.0, 0.1, (3.0, 2.0), 0.3, ""), "all_reduce gave 3.0, 2.0 by rank, the sum is 3.0"),
        (lambda: Trial(2, 1.0, 0.1, (3.0, 3.0), 9.0, ""), "a group with a timeout of 0.3 s waited for 9.0 s"),
    ],
)
def test_ranks_that_do_not_work_are_a_problem(run: Callable[[], Trial], problem: str) -> None:
    found = trial.ranks("cpu", run)
    assert problem in (found.problem or "")
    assert found.remedy


@pytest.mark.parametrize(
    ("split", "text"),
    [("", "split_group works"), (None, "no split_group"), ("no device", "split_group refuses: no device")],
)
def test_what_split_group_does_is_told_and_is_no_problem(split: str | None, text: str) -> None:
    found = trial.ranks("cpu", lambda: Trial(1, 1.0, 0.001, (1.0,), None, split))
    assert found.value == f"1 ready in 1.0 s, all_reduce in 1.0 ms, {text}"
    assert found.problem is None
