"""Sessions of their own: a process has one fork server, and that of the tests is running already."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

LIBRARY = """
import os

PROCESS = os.getpid()
"""
VENDOR = """
from pytest_vdist import Capabilities

class Vendor:
    name = "vendor"
    def capabilities(self, device_type): return Capabilities(preload=("heavy_library", "not_there"))
    def init(self, settings): ...
    def coordinator(self, group_ranks, *, name, **options): ...
    def destroy(self): ...
"""
TEST = """
import os

def test_imports(distributed_run):
    def importers():
        import heavy_library
        return os.getpid(), heavy_library.PROCESS

    (first, of_first), (second, of_second) = distributed_run(importers, init_process_group=False)
    print("once" if of_first == of_second and of_first not in (first, second) else "in every rank")
"""


def output(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", *arguments]
    ended = subprocess.run(
        [*command, "--vdist-backend=cpu", "test_imports.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_what_an_implementation_declares_is_imported_once_for_all_ranks(tmp_path: Path) -> None:
    (tmp_path / "heavy_library.py").write_text(LIBRARY)
    (tmp_path / "vendor_comm.py").write_text(VENDOR)
    (tmp_path / "test_imports.py").write_text(TEST)
    assert "once" in output(tmp_path, "--vdist-impl=vendor_comm.py:Vendor")
    assert "in every rank" in output(tmp_path)
