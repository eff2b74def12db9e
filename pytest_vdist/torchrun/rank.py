"""One rank under torchrun: runs the script as torchrun would, and leaves notes in the folder of the run.

It runs as a script, `rank.py script arguments`, and imports nothing of this package. The notes are files:
`PID.pid` holds the rank, `RANK.stdout` and `RANK.stderr` its output, `RANK.stacks` the stacks that the
signal SIGUSR2 asks for, `RANK.failed` when, with what exit code and by what error the script failed.
"""

from __future__ import annotations

import ctypes
import faulthandler
import importlib
import json
import os
import runpy
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

FOLDER = "VDIST_TORCHRUN_FOLDER"
SETUP = "VDIST_TORCHRUN_SETUP"
PACKAGE = "VDIST_TORCHRUN_PACKAGE"
STACKS_SIGNAL = signal.SIGUSR2
_PR_SET_PDEATHSIG = 1
_FROZEN = "<frozen runpy>"
Hook = Callable[[type[BaseException], BaseException, TracebackType | None], object]


def main() -> None:
    """Run the script. Raises what it raises."""
    folder, rank = Path(os.environ[FOLDER]), os.environ["RANK"]
    _end_with_agent()
    stacks = (folder / f"{rank}.stacks").open("wb")
    faulthandler.register(STACKS_SIGNAL, file=stacks, all_threads=True)
    _write(folder / f"{os.getpid()}.pid", rank)
    _redirect(folder, rank)
    try:
        _run(sys.argv[1:])
    except BaseException as error:
        code = _exit_code(error)
        if code:
            note = {"time": time.monotonic(), "exit_code": code, "error": _text(error)}
            _write(folder / f"{rank}.failed", json.dumps(note))
        sys.excepthook = _from_script_on(sys.excepthook)
        raise


def _run(arguments: list[str]) -> None:
    script = arguments[0]
    sys.argv = arguments
    sys.path[0] = str(Path(script).parent)
    package = os.environ.get(PACKAGE, "")
    if package and package not in sys.path:
        sys.path.append(package)  # where pytest found pytest_vdist; last, so that nothing is hidden by it
    module, _, function = os.environ.get(SETUP, "").partition(":")
    if module:
        getattr(importlib.import_module(module), function)()
    runpy.run_path(script, run_name="__main__")


def _end_with_agent() -> None:
    """Die with torchrun, however it ends."""
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _redirect(folder: Path, rank: str) -> None:
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        with (folder / f"{rank}.{name}").open("ab") as target:
            os.dup2(target.fileno(), descriptor)


def _from_script_on(hook: Hook) -> Hook:
    """Show tracebacks by `hook` without the frames before the script's."""

    def show(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        own = traceback
        while own is not None and own.tb_frame.f_code.co_filename in {__file__, runpy.__file__, _FROZEN}:
            own = own.tb_next
        shown = own or traceback
        hook(kind, error.with_traceback(shown), shown)

    return show


def _exit_code(error: BaseException) -> int:
    if not isinstance(error, SystemExit):
        return 1
    if error.code is None or isinstance(error.code, int):
        return error.code or 0
    return 1


def _text(error: BaseException) -> str:
    if not isinstance(error, SystemExit):
        return f"{type(error).__name__}: {error}"
    return "" if isinstance(error.code, int) else str(error.code)


def _write(path: Path, text: str) -> None:
    """Write the whole text at once: a reader sees all of it or none."""
    unfinished = path.with_suffix(".part")
    unfinished.write_text(text)
    unfinished.rename(path)


if __name__ == "__main__":
    main()
