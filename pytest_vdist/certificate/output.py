"""The folder that a certification writes into, also where the disk is full or cannot be written."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from pytest_vdist.certificate.report import folder as names

SESSION = "session.json"


class OutputError(Exception):
    """Raised when the folder cannot be used or written: says what, where, and what is left."""


def check(folder: Path) -> None:
    """Raise OutputError if the folder is not empty, or cannot be made or written; change nothing."""
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} must be a folder, and is a file; name another one")
    try:
        held = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        raise OutputError(f"cannot read the folder {folder}: {error.strerror}; name another one") from error
    if held:
        raise OutputError(
            f"the folder {folder} must be empty, it holds {', '.join(held[:3])}"
            f"{' and more' if len(held) > 3 else ''}; name another one, or remove it"
        )
    standing = next(place for place in (folder, *folder.absolute().parents) if place.is_dir())
    if not os.access(standing, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write in the folder {standing}; name one that can be written")


def prepare(folder: Path) -> None:
    """Make the folder. Raises OutputError if it is not empty or cannot be made."""
    check(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot make the folder {folder}: {error.strerror}; name one that can be written"
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write a whole file or nothing: a file that stood there stays until the new one is complete."""
    beside = path.with_name(f"{path.name}.new")
    try:
        with beside.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        _remove(beside)
        raise OutputError(cannot_write(path, error)) from error


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


class ResultsFile:
    """results.jsonl: a line for every finished test, on the disk before the next one begins."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / names.RESULTS
        try:
            self._file: BinaryIO = self._path.open("ab", buffering=0)
        except OSError as error:
            raise OutputError(cannot_write(self._path, error)) from error

    def add(self, result: Mapping[str, Any]) -> None:
        """Write one line. Raises OutputError if that cannot be; the lines before it stay whole."""
        line = names.results_text([dict(result)]).encode("utf-8")
        end = os.fstat(self._file.fileno()).st_size
        try:
            written = self._file.write(line)
            if written != len(line):
                raise OSError(0, "the disk took a part of a line only")
            os.fsync(self._file.fileno())
        except OSError as error:
            os.ftruncate(self._file.fileno(), end)
            raise OutputError(cannot_write(self._path, error)) from error

    def close(self) -> None:
        self._file.close()


def read_results(folder: Path) -> list[dict[str, Any]]:
    """Return the whole lines of results.jsonl; the last one may be cut off where a machine went down.

    Raises ReportError if there is no such file, or a line before the last is no JSON.
    """
    text = names.read_text(folder / names.RESULTS)
    whole, _, rest = text.rpartition("\n")
    return names.results_of(whole if rest else text, source=names.RESULTS)


def cannot_write(path: Path, error: OSError) -> str:
    """Return what to tell of a file in the folder that could not be written."""
    return (
        f"cannot write {path}: {error.strerror}; what is there stays usable: "
        f"make room and run `vdist report {path.parent}`, or certify into another folder"
    )


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(cannot_write(path, error)) from error
