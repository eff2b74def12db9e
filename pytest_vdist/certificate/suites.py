"""The files of the suites: where they are, and what tells whether they are those of a report."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

# In a checkout the folder is a link to a folder beside the package; a test may be reached by either path.
SUITES = Path(os.path.realpath(Path(__file__).parents[1] / "suites"))


def suites_digest() -> str:
    """Return the SHA-256 over names and contents of all files of the suites: changed suites show."""
    whole = hashlib.sha256()
    for path in sorted(SUITES.rglob("*.py")):
        whole.update(f"{path.relative_to(SUITES).as_posix()}\0".encode())
        whole.update(hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()
