"""torchrun, which ends with the process that started it: `agent.py LIFELINE FOLDER arguments of torchrun`.

It runs as a script and imports nothing of this package. LIFELINE is the number of a pipe; nobody writes to
it, and it ends with whoever holds the other end.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
from pathlib import Path


def main() -> None:
    """Run torchrun in this process."""
    lifeline, folder = int(sys.argv[1]), Path(sys.argv[2])
    sys.argv = ["torchrun", *sys.argv[3:]]
    sys.path.pop(0)
    threading.Thread(target=_end_with_starter, args=(lifeline, folder), daemon=True).start()
    runpy.run_module("torch.distributed.run", run_name="__main__", alter_sys=True)


def _end_with_starter(lifeline: int, folder: Path) -> None:
    os.read(lifeline, 1)
    for note in folder.glob("*.pid"):
        try:
            if os.fsencode(folder) in Path(f"/proc/{note.stem}/environ").read_bytes():
                os.killpg(int(note.stem), signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
