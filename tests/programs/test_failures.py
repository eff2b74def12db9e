"""Programs that fail on ranks: found, made small, explained, and done again by option and by torchrun."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_vdist import ProgramFailedError
from pytest_vdist.programs.model import Call, Groups, Input, Operand, Program
from pytest_vdist.programs.script import Setting, script_of

pytestmark = pytest.mark.usefixtures("plain_sessions")

SEARCH = """
def test_programs(program_search):
    program_search(world_size=2)
"""

BROKEN = """
import torch
from pytest_vdist.implementations.reference import ReferenceImplementation


class Wrapped:
    def __init__(self, coordinator):
        self.inner = coordinator

    def __getattr__(self, name):
        return getattr(self.inner, name)

    {defect}


class Broken(ReferenceImplementation):
    def coordinator(self, group_ranks, *, name, **options):
        return Wrapped(super().coordinator(group_ranks, name=name, **options))
"""

WRONG_SUM = """
    def all_reduce(self, input_):
        result = self.inner.all_reduce(input_)
        if self.world_size > 1 and self.rank_in_group == 1 and result.numel():
            result.view(-1)[-1] += 1
        return result
"""
MISSING_RANK = """
    def all_gather(self, input_, dim=-1):
        if self.world_size > 1 and self.rank_in_group == 0:
            return input_
        return self.inner.all_gather(input_, dim)
"""


def failure_of(pytester: pytest.Pytester, defect: str, *arguments: str) -> str:
    """Return what a session prints whose programs fail on an implementation with the defect."""
    pytester.makepyfile(broken=BROKEN.format(defect=defect.strip()), test_search=SEARCH)
    result = pytester.runpytest_subprocess(
        "--vdist-backend=cpu",
        "--vdist-impl=broken.py:Broken",
        "-p",
        "no:cacheprovider",
        *arguments,
        "test_search.py",
    )
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    return re.sub(r"^E {3}", "", result.stdout.str(), flags=re.MULTILINE)


def test_a_wrong_value_shrinks_is_explained_and_can_be_done_again(pytester: pytest.Pytester) -> None:
    printed = failure_of(pytester, WRONG_SUM)

    assert re.search(r"rank 1, call 0, y0 = world.all_reduce\(x0\): index .*: got .*, want ", printed)
    assert re.search(
        r"the program, on 2 ranks:\n  rank 0:\n      x0 = torch.tensor\(.*\n      y0 = world", printed
    )
    (program,) = set(re.findall(r"--vdist-replay='(\{.*\})'", printed))
    assert program.count('"operation"') <= 3
    replayed = failure_of(pytester, WRONG_SUM, f"--vdist-replay={program}")
    assert "rank 1, call 0, y0 = world.all_reduce(x0)" in replayed
    script = printed[printed.index("  import base64") : printed.index("  sys.exit(bool(wrong))")]
    lines = [line.removeprefix("  ") for line in script.splitlines()]
    Path("program.py").write_text("\n".join([*lines, "sys.exit(bool(wrong))\n"]), encoding="utf-8")
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        "program.py",
    ]
    result = subprocess.run(torchrun, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 1
    assert "rank 1, y0 = world.all_reduce(x0):\n  got  tensor(" in result.stdout
    assert "rank 0: all is right" in result.stdout


def test_a_deadlock_is_cut_down_to_the_call_that_causes_it(pytester: pytest.Pytester) -> None:
    printed = failure_of(pytester, MISSING_RANK, "--vdist-timeout=8")

    assert "has not finished within the timeout of" in printed
    (program,) = set(re.findall(r"--vdist-replay='(\{.*\})'", printed))
    assert program.count('"operation"') <= 4
    assert '"operation":"all_gather"' in program


def test_a_text_that_is_no_program_is_an_error_that_says_so(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SEARCH)
    result = pytester.runpytest_subprocess("--vdist-backend=cpu", "--vdist-replay={}")
    result.stdout.fnmatch_lines(["*ValueError: this is no program (KeyError: 'world_size'): '{}'"])


def test_a_program_of_ranks_that_shared_devices_is_done_again_by_such() -> None:
    program = Program(world_size=3, groups=(Groups(((0, 1, 2),)),), inputs=(), calls=())
    implementation = "pytest_vdist.implementations.reference:ReferenceImplementation"
    setting = Setting(implementation, "mydev", devices=2, sharing_environment={"HOST_ID": "node-{node}"})
    text = str(ProgramFailedError(program, "wrong", setting))
    assert " --vdist-ranks-per-device=2\n" in text
    lines = ["NODE, LOCAL_RANK = divmod(RANK, 2)  # ranks share the devices"]
    lines.append("os.environ['HOST_ID'] = 'node-{node}'.format(node=NODE)")
    assert "\n".join(lines) in script_of(program, setting)
    enough = replace(setting, devices=3)
    assert "divmod" not in script_of(program, enough)
    assert "--vdist-ranks-per-device" not in str(ProgramFailedError(program, "wrong", enough))


def test_a_compiled_program_is_a_script_that_compiles_it(tmp_path: Path) -> None:
    program = Program(
        world_size=2,
        groups=(Groups(((0, 1),)), Groups(((1, 0),))),
        inputs=(Input((3, 2), "bfloat16"),),
        calls=(
            Call("all_reduce", 0, (Operand("x0"),)),
            Call("gather", 1, (Operand("y0"),), root=1),
            Call("broadcast", 1, (Operand("y0"),)),
        ),
    )
    script = tmp_path / "program.py"
    setting = Setting(
        "pytest_vdist.implementations.reference:ReferenceImplementation", compile_mode="aot_eager"
    )
    script.write_text(script_of(program, setting), encoding="utf-8")
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        str(script),
    ]
    result = subprocess.run(torchrun, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert sorted(result.stdout.splitlines()) == ["rank 0: all is right", "rank 1: all is right"]
