"""The benchmark's body, run by torchrun once for each test."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import torch, torch.distributed as dist
dist.init_process_group("gloo")
x = torch.full((1024,), float(dist.get_rank() + 1))
dist.all_reduce(x)
assert torch.all(x == 3.0)
dist.destroy_process_group()
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("torchrun") / "script.py"
    path.write_text(SCRIPT)
    return path


@pytest.mark.parametrize("n", range(3))
def test_all_reduce(script: Path, n):
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        str(script),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
