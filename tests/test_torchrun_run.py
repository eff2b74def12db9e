"""The fixture `torchrun_run`: outputs, failures, the deadline, and that nothing is left behind."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_vdist import TorchrunError
from pytest_vdist.backends.cpu import BACKEND
from pytest_vdist.torchrun import notes
from pytest_vdist.torchrun.launch import Launch
from pytest_vdist.torchrun.notes import Notes
from pytest_vdist.torchrun.run import TorchrunRunner

PATIENT = 120.0
RUN = TorchrunRunner(BACKEND, 4, 60.0)
EXCLUSIVE = replace(
    BACKEND, name="exclusive", shares_device=False, visible_devices_variable="VDIST_TEST_VISIBLE"
)

TELL = """
import os, sys
assert __name__ == "__main__"
print("arguments", *sys.argv[1:])
for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "VDIST_DEVICE_TYPE", "VDIST_DISTRIBUTED_USE_SPLIT_GROUP",
             "VDIST_TEST_VISIBLE", "ADDED"):
    print(name, os.environ.get(name))
print("to stderr", file=sys.stderr)
"""
FAIL = """
import os, signal, sys, threading
rank = os.environ["RANK"]
print("rank", rank, "is here", flush=True)
here = os.path.join(os.path.dirname(__file__), "rank 0 is here")
if rank == "0":
    open(here, "x").close()
if rank == "1":
    while not os.path.exists(here):
        threading.Event().wait(0.02)
    {how}
threading.Event().wait()
"""
HANG = """
import os, subprocess, sys, threading
def wait_for_the_others():
    threading.Event().wait()
if os.environ["RANK"] == "1":
    child = subprocess.Popen([sys.executable, "-c", "import threading; threading.Event().wait()"])
    print("child", child.pid, flush=True)
    wait_for_the_others()
"""
CONTROLLER = """
import sys, threading, os
from pathlib import Path
from pytest_vdist.torchrun.launch import Launch
Launch(Path(sys.argv[1]), (), 2, [dict(os.environ)], 300.0).run()
"""


def written(folder: Path, text: str) -> Path:
    script = folder / "script.py"
    script.write_text(text)
    return script


def ends_soon(pid: int) -> bool:
    """Tell whether a process ends within 30 seconds."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([process], [], [], 30.0)[0])
    finally:
        os.close(process)


def test_each_rank_of_two_agents_has_its_devices_and_its_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = TorchrunRunner(EXCLUSIVE, 2, PATIENT)
    outputs = run(
        written(tmp_path, TELL),
        "--size",
        "two words",
        nproc_per_node=1,
        nnodes=2,
        env={"ADDED": "here"},
        split_group=True,
    )
    for rank, output in enumerate(outputs):
        assert output.stdout.splitlines() == [
            "arguments --size two words",
            f"RANK {rank}",
            "WORLD_SIZE 2",
            "LOCAL_RANK 0",
            "VDIST_DEVICE_TYPE cpu",
            "VDIST_DISTRIBUTED_USE_SPLIT_GROUP 1",
            output.stdout.splitlines()[6],
            "ADDED here",
        ]
        assert output.stderr == "to stderr\n"
    devices = {output.stdout.splitlines()[6] for output in outputs}
    assert devices == {"VDIST_TEST_VISIBLE 0", "VDIST_TEST_VISIBLE 1"}
    captured = capsys.readouterr()
    assert "[rank 1] RANK 1" in captured.out
    assert captured.err.count("to stderr") == 2


def test_ranks_that_share_devices_are_those_of_as_many_more_agents(tmp_path: Path) -> None:
    shared = replace(EXCLUSIVE, sharing_environment={"ADDED": "node {node}", "VDIST_DEVICE_TYPE": "taken"})
    logged: list[int] = []
    run = TorchrunRunner(shared, 2, PATIENT, ranks_per_device=2, log_run=lambda size, _: logged.append(size))
    outputs = run(written(tmp_path, TELL), nproc_per_node=4, env={"VDIST_DEVICE_TYPE": "of the call"})
    told = [output.stdout.splitlines() for output in outputs]
    assert {lines[4] for lines in told} == {"VDIST_DEVICE_TYPE of the call"}
    assert [lines[1:4] + lines[6:] for lines in told] == [
        [
            f"RANK {rank}",
            "WORLD_SIZE 4",
            f"LOCAL_RANK {rank % 2}",
            "VDIST_TEST_VISIBLE 0,1",
            f"ADDED node {rank // 2}",
        ]
        for rank in range(4)
    ]
    assert logged == [4]


def test_a_death_names_the_rank_its_signal_and_its_last_output(tmp_path: Path) -> None:
    script = written(tmp_path, FAIL.format(how="os.kill(os.getpid(), signal.SIGKILL)"))
    with pytest.raises(TorchrunError) as failure:
        RUN(script, timeout=PATIENT)
    assert failure.value.headline == "rank 1 of 2 failed: killed by SIGKILL"
    assert "last output of rank 1:\n  rank 1 is here" in str(failure.value)
    assert [output.stdout for output in failure.value.outputs] == ["rank 0 is here\n", "rank 1 is here\n"]


def test_a_stuck_rank_is_shown_with_its_stack_and_ended_with_its_children(tmp_path: Path) -> None:
    with pytest.raises(
        TorchrunError, match=r"^rank 1 of 2 has not finished within the timeout of "
    ) as failure:
        RUN(written(tmp_path, HANG), timeout=2)
    assert "stack of rank 1:" in str(failure.value)
    assert "in wait_for_the_others" in str(failure.value)
    assert "stack of rank 0" not in str(failure.value)
    child = int(failure.value.outputs[1].stdout.split()[1])
    assert ends_soon(child)


def test_nothing_outlives_a_controller_that_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    stuck = 'import threading, os\nprint("up")\nthreading.Event().wait()'
    controller = subprocess.Popen([sys.executable, "-c", CONTROLLER, str(written(tmp_path, stuck))])
    try:
        pids = _ranks_below(tmp_path)
    finally:
        controller.kill()
        controller.wait()
    assert len(pids) == 2
    assert all(ends_soon(pid) for pid in pids)


def _ranks_below(folder: Path) -> list[int]:
    """Wait until both ranks have left their notes, and return their process ids."""
    for _ in range(600):
        found = list(folder.glob("vdist-torchrun-*/*.pid"))
        if len(found) == 2:
            return [int(path.stem) for path in found]
        select.select([], [], [], 0.1)
    return []


def test_a_script_that_torchrun_cannot_start_shows_what_torchrun_says(tmp_path: Path) -> None:
    launch = Launch(
        written(tmp_path, TELL), (), 1, [{"PATH": os.environ["PATH"], "PYTHONHOME": "/nowhere"}], PATIENT
    )
    with pytest.raises(TorchrunError, match="torchrun failed without naming a rank") as failure:
        launch.run()
    assert "last output of torchrun:" in str(failure.value)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"nproc_per_node": 0}, "nproc_per_node must be a whole number from 1, got 0"),
        ({"nnodes": True}, "nnodes must be a whole number from 1, got True"),
        ({"nproc_per_node": 3}, "nproc_per_node=3 x nnodes=1 needs 3 devices of backend 'exclusive', this"),
        ({"timeout": 0}, r"timeout must be a number of seconds up to 86400 \(a day\), got 0"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, int], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        TorchrunRunner(EXCLUSIVE, 2, 60.0)(__file__, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("numbers", [(1, 2), (3, 1)])
def test_several_agents_on_devices_that_nothing_hides_are_refused(numbers: tuple[int, int]) -> None:
    unhidden = replace(EXCLUSIVE, visible_devices_variable="", sharing_environment={})
    run, (ranks, nodes) = TorchrunRunner(unhidden, 2, 60.0, ranks_per_device=2), numbers
    with pytest.raises(ValueError, match="takes several agents of torchrun, whose ranks would all get"):
        run(__file__, nproc_per_node=ranks, nnodes=nodes)


def test_a_script_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no script .*nothing\.py"):
        RUN(tmp_path / "nothing.py")


def test_a_death_comes_before_the_failures_that_it_caused(tmp_path: Path) -> None:
    (tmp_path / "0.failed").write_text('{"time": 1.0, "exit_code": 1, "error": "ConnectionError: closed"}')
    (tmp_path / "2.failed").write_text('{"time": 0.5, "exit_code": 3, "error": ""}')
    failure = "  rank      : {} (local_rank: 0)\n  exitcode  : {} (pid: 5)\n"
    (tmp_path / "agent-0.log").write_text(failure.format(1, -11) + failure.format(3, -signal.SIGTERM))
    ends = Notes(tmp_path, 4).failures()
    assert [(end.rank, end.exit_code) for end in ends] == [(1, -11), (2, 3), (0, 1)]
    assert notes.RankOutput(0, "", "") in Notes(tmp_path, 4).output()


def test_a_process_that_has_the_number_of_an_ended_rank_is_spared(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "1000"], start_new_session=True) as other:
        (tmp_path / f"{other.pid}.pid").write_text("0")
        Notes(tmp_path, 1).kill()
        assert other.poll() is None
        assert not select.select([os.pidfd_open(other.pid)], [], [], 0.2)[0]
        other.kill()


def test_the_fixture_reaches_a_test(pytester: pytest.Pytester, plain_sessions: None) -> None:
    pytester.makepyfile(
        script=FAIL.format(how='raise RuntimeError("no more room")'),
        test_it="""
from pathlib import Path

def test_script(torchrun_run):
    torchrun_run(Path(__file__).parent / "script.py", timeout=100)
""",
    )
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "E       pytest_vdist.TorchrunError: rank 1 of 2 failed: its process exited with code 1: "
            "RuntimeError: no more room",
            "*Captured stdout call*",
            "[[]rank 0[]] rank 0 is here",
        ]
    )
    result.stdout.no_fnmatch_line("*pytest_vdist/torchrun/*")
