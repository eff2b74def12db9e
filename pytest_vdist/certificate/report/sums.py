"""SHA256SUMS: the digests of all files of a folder, as `sha256sum -c` reads them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from pytest_vdist.certificate.report.folder import ATTESTATION, PUBLIC_KEY, SUMS

# A signature covers SHA256SUMS itself, so it can only be made after it.
NOT_SUMMED = (SUMS, ATTESTATION, PUBLIC_KEY)


def write_sums(folder: Path) -> Path:
    """Write the digests of all files below the folder, but for the signature's; return where."""
    path = folder / SUMS
    path.write_bytes(sums_text(folder).encode("utf-8"))
    return path


def sums_text(folder: Path) -> str:
    """Return what SHA256SUMS of the folder must hold: `<digest>  <path>`, by path."""
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(_digests(folder).items()))


def sums_problems(folder: Path) -> list[str]:
    """Return which files are missing, extra or changed since the sums were written; [] if none is."""
    try:
        written = (folder / SUMS).read_bytes()
    except FileNotFoundError:
        return [f"{SUMS} is missing: the session did not end, or somebody removed it"]
    links = [f"{name} is a link: a certificate holds files only" for name in _links(folder)]
    text = written.decode("utf-8", errors="replace")
    listed = dict(_listed(line) for line in text.splitlines() if line.strip())
    present = _digests(folder)
    problems = [f"{name} is missing, {SUMS} lists it" for name in sorted(listed.keys() - present.keys())]
    problems += [f"{name} is not listed in {SUMS}" for name in sorted(present.keys() - listed.keys())]
    problems += [
        f"{name} has changed: SHA-256 is {present[name][:12]}…, {SUMS} says {listed[name][:12]}…"
        for name in sorted(listed.keys() & present.keys())
        if listed[name] != present[name]
    ]
    if not problems and written != sums_text(folder).encode("utf-8"):
        problems = [f"{SUMS} is not as it was written: its lines are out of order, repeated or malformed"]
    return links + problems


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _listed(line: str) -> tuple[str, str]:
    digest, _, name = line.partition("  ")
    return name, digest


def _digests(folder: Path) -> dict[str, str]:
    return {
        name: digest_of(folder / name)
        for name in _names(folder)
        if name not in NOT_SUMMED and (folder / name).is_file()
    }


def _links(folder: Path) -> list[str]:
    return sorted(name for name in _names(folder) if (folder / name).is_symlink())


def _names(folder: Path) -> list[str]:
    names = []
    for place, folders, files in os.walk(folder):
        below = Path(place).relative_to(folder)
        linked = [name for name in folders if Path(place, name).is_symlink()]
        names += [(below / name).as_posix() for name in [*files, *linked]]
    return names
