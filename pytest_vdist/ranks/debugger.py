"""A debugger inside a rank, whose terminal is the controller's: it asks for one line at a time."""

from __future__ import annotations

import pdb
import sys
import types
from collections.abc import Callable
from typing import Any

from pytest_vdist.ranks.context import current_rank

Ask = Callable[[str], str]


class _Terminal:
    """What the debugger writes is kept until it wants a line; then both travel together."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._text: list[str] = []

    def write(self, text: str) -> None:
        self._text.append(text)

    def flush(self) -> None:
        """Do nothing: text without a question waits for the next one."""

    def readline(self) -> str:
        text = "".join(self._text)
        self._text.clear()
        return self._ask(text)


class RankDebugger:
    """Makes `breakpoint()` and `pdb.set_trace()` work in this rank, and debugs exceptions after the fact."""

    def __init__(self, ask: Ask) -> None:
        """`ask` shows a text at the controller's terminal and returns what was typed, "" at its end."""
        self._ask = ask

    def install(self) -> None:
        sys.breakpointhook = self._break
        pdb.set_trace = self._break

    def post_mortem(self, error: BaseException, is_runner: Callable[[types.FrameType], bool]) -> None:
        """Let the user look at the frames of an exception, from the function's own first one on."""
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None and is_runner(trace.tb_frame):
            trace = trace.tb_next
        if trace is None:
            return
        debugger = self._debugger(f"{type(error).__name__}: {error}\n")
        debugger.reset()
        debugger.interaction(None, trace)

    def _break(self, *_: Any, header: str | None = None, **__: Any) -> None:
        caller = sys._getframe(1)  # noqa: SLF001 - as pdb.set_trace of the standard library does
        self._debugger(f"{header}\n" if header else "").set_trace(caller)

    def _debugger(self, greeting: str) -> pdb.Pdb:
        terminal: Any = _Terminal(self._ask)
        terminal.write(greeting)
        debugger = pdb.Pdb(stdin=terminal, stdout=terminal, nosigint=True, readrc=False)
        debugger.prompt = f"(rank {current_rank().rank}) "
        return debugger
