"""`vdist report` in folders that no session has written."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_vdist import cli


@pytest.mark.parametrize(
    ("session", "problem"),
    [
        ("[]", "must hold a JSON object, got list"),
        ("{", "is not valid JSON"),
        ("{}", "is not what --vdist-certify writes: KeyError: 'expected'; nothing was changed"),
        ('{"expected": []}', "is not what --vdist-certify writes: AttributeError"),
    ],
)
def test_a_session_of_something_else_is_refused_and_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], session: str, problem: str
) -> None:
    (tmp_path / "session.json").write_text(session)
    (tmp_path / "results.jsonl").write_text("")
    assert cli.main(["report", str(tmp_path)]) == 4
    shown = capsys.readouterr().err
    assert f"vdist report: {tmp_path / 'session.json'} " in shown
    assert problem in shown
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.jsonl", "session.json"]
