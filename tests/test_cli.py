from __future__ import annotations

from importlib import metadata

import pytest

from pytest_vdist.cli import main
from pytest_vdist.options import TABLE


def test_version_is_that_of_the_distribution(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"vdist {metadata.version('pytest-vdist')}\n"


def test_options_prints_a_line_for_each_row_of_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["options"]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split() == ["flag", "environment", "ini", "key", "default"]
    assert [line.split() for line in lines] == [[r.flag, r.variable, r.ini, r.default] for r in TABLE]


def test_the_columns_are_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    main(["options"])
    header, *lines = capsys.readouterr().out.splitlines()
    column = header.index("ini key")
    assert all(line[column - 1] == " " and line[column:].startswith("vdist_") for line in lines)


def test_without_a_command_the_help_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert capsys.readouterr().out.startswith("usage: vdist ")


def test_an_unknown_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["certify"])
    assert ended.value.code == 2
    assert "invalid choice: 'certify'" in capsys.readouterr().err


def test_the_command_is_installed() -> None:
    (command,) = metadata.entry_points(group="console_scripts", name="vdist")
    assert command.load() is main
