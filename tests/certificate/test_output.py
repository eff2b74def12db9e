"""The folder of a certification, where it cannot be used and where the disk is full."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pytest_vdist.certificate import output
from pytest_vdist.certificate.output import OutputError, ResultsFile, read_results


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size in bytes, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_results_are_on_the_disk_as_soon_as_they_are_added(tmp_path: Path) -> None:
    file = ResultsFile(tmp_path)
    file.add({"test": "one"})
    assert read_results(tmp_path) == [{"test": "one"}]
    file.add({"test": "two"})
    assert [each["test"] for each in read_results(tmp_path)] == ["one", "two"]
    file.close()


def test_a_full_disk_leaves_the_lines_before_whole_and_says_what_to_do(tmp_path: Path) -> None:
    file = ResultsFile(tmp_path)
    file.add({"test": "one"})
    with files_of_at_most(100), pytest.raises(OutputError) as caught:
        file.add({"test": "t" * 200})
    assert "results.jsonl: " in str(caught.value)
    assert f"make room and run `vdist report {tmp_path}`" in str(caught.value)
    assert read_results(tmp_path) == [{"test": "one"}]
    file.add({"test": "two"})
    assert [each["test"] for each in read_results(tmp_path)] == ["one", "two"]
    file.close()


def test_a_file_that_does_not_fit_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "session.json"
    output.write_text(path, "old")
    with files_of_at_most(100), pytest.raises(OutputError, match=r"cannot write .*session.json: "):
        output.write_text(path, "n" * 200)
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["session.json"]


def test_a_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_text('{"test": "one"}\n{"test": "tw')
    assert read_results(tmp_path) == [{"test": "one"}]


def test_a_folder_that_holds_something_is_refused(tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / f"file{number}").touch()
    with pytest.raises(OutputError) as caught:
        output.check(tmp_path)
    assert f"the folder {tmp_path} must be empty, it holds file0, file1, file2 and more" in str(caught.value)


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(OutputError, match="out must be a folder, and is a file"):
        output.check(tmp_path / "out")


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Who runs the tests may be root, whom no permissions stop: only a file system that is mounted read-only.
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(OutputError, match=f"cannot write in the folder {tmp_path}; name one that can be"):
        output.check(tmp_path / "new" / "out")
    assert not (tmp_path / "new").exists()
