"""Makes faulthandler's dumps readable: the function's own frames, without those of the runner."""

from __future__ import annotations

import re
import sysconfig
from pathlib import Path

_FRAME = re.compile(r'File "(?P<file>.+)", line (?P<line>\d+) in (?P<function>.+)')
_LIBRARIES = tuple(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib"))
_RUNNER_FOLDER = str(Path(__file__).parent)


def readable(dump: str) -> str:
    """Return the threads of `dump` that belong to the function under test, each cut where the runner begins.

    The dump lists the most recent call first, so all that follows the runner's loop is how the process began.
    """
    threads = [_own_frames(block) for block in dump.strip().split("\n\n")]
    shown = [block for block in threads if len(block) > 1]
    return "\n".join("\n".join(block) for block in shown) or dump.strip()


def place(stack: str) -> str:
    """Return where the main thread is, in own code rather than in a library: `f (test_x.py:12)`."""
    _, _, main = stack.partition("Current thread")
    frames = [match.groupdict() for match in _FRAME.finditer(main)]
    own = [frame for frame in frames if not frame["file"].startswith(_LIBRARIES)]
    if not frames:
        return ""
    frame = (own or frames)[0]
    return f"{frame['function']} ({Path(frame['file']).name}:{frame['line']})"


def _own_frames(block: str) -> list[str]:
    title, *frames = block.splitlines()
    own = []
    for frame in frames:
        if f'"{_RUNNER_FOLDER}/watch.py"' in frame:
            continue
        if f'"{_RUNNER_FOLDER}/' in frame:
            break
        own.append(frame)
    return [title, *own]
