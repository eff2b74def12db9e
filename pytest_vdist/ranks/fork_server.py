"""Imported in the fork server alone, when it starts: it cleans up after itself if the controller can't.

The socket through which ranks are asked for lies in a temporary folder, which the controller removes when it
ends. One that is killed can't, but the fork server outlives it for a moment.
"""

from __future__ import annotations

import atexit
import shutil
from pathlib import Path

from pytest_vdist.ranks import _compat


def _remove_socket() -> None:
    address = _compat.fork_server_address()
    if address:
        shutil.rmtree(Path(address).parent, ignore_errors=True)


atexit.register(_remove_socket)
