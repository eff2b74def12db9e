"""`vdist mutants` on a few mutants of different kinds, with real ranks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_vdist.cli import main
from pytest_vdist.mutation.command import chosen
from pytest_vdist.reference_impl.mutants import MUTANTS

SAMPLE = {
    "reduce_scatter_moves_dimensions_the_wrong_way": "VD-RS-002",
    "barrier_does_nothing": "VD-BAR-001",
    "keys_arrive_sorted": "VD-TD-001",
    "send_tensor_dict_of_one_rank_gives_none": "VD-TD-013",
    "names_go_on_counting_in_the_next_world": "VD-INIT-007",
}


def test_a_sample_is_killed_by_the_tests_of_its_requirements(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [f"--{kind}={tmp_path / kind}" for kind in ("json", "html", "markdown")]
    code = main(["mutants", *SAMPLE, "--jobs=2", "--timeout=30", *files])
    printed = capsys.readouterr().out
    assert code == 0, printed
    assert f"{len(SAMPLE)} of {len(SAMPLE)} mutants killed, score 100.0 %" in printed
    assert printed.count(f"/{len(SAMPLE)}] ") == len(SAMPLE)
    results = json.loads((tmp_path / "json").read_text())["results"]
    noticed = {
        result["mutant"]: (result["kill"]["requirements"], result["kill"]["how"]) for result in results
    }
    for mutant, requirement in SAMPLE.items():
        assert requirement in noticed[mutant][0], mutant
        assert noticed[mutant][1] == "failed", mutant
        assert mutant in (tmp_path / "html").read_text()
        assert mutant in (tmp_path / "markdown").read_text()


def test_mutants_are_chosen_by_name_and_requirement() -> None:
    assert len(chosen([], [])) == len(MUTANTS)
    assert {mutant.name for mutant in chosen(["keys_arrive_*", "sum_is_zero"], [])} == {
        "keys_arrive_sorted",
        "sum_is_zero",
    }
    of_barriers = chosen([], ["VD-BAR-001"])
    assert "barrier_does_nothing" in {mutant.name for mutant in of_barriers}
    assert all("VD-BAR-001" in mutant.kills for mutant in of_barriers)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no_such"], "no mutant is named 'no_such'; `vdist mutants --list` names them"),
        (
            ["sum_is_zero", "--requirement=VD-BAR-001"],
            "no mutant of these names should be noticed by VD-BAR-001",
        ),
        (["--requirement=VD-BAR-01"], "unknown requirement 'VD-BAR-01'; did you mean VD-BAR-001"),
        (["--backend=gpu"], "unknown backend, got 'gpu' from --backend"),
        (["--jobs=0"], "--jobs must be a whole number from 1, got 0"),
        (["groups_are_never_split"], "none of the chosen mutants shows on cpu; pass --backend=cuda"),
    ],
)
def test_wrong_arguments_end_with_exit_code_4(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["mutants", *arguments]) == 4
    assert message in capsys.readouterr().err


def test_the_list_names_requirement_summary_and_issue(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mutants", "--list", "reduce_scatter_moves*"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "reduce_scatter_moves_dimensions_the_wrong_way: VD-RS-002",
        "    The dimension to scatter is brought to the front by movedim(0, dim) instead of movedim(dim, 0).",
        "    https://github.com/vllm-project/vllm/issues/30546",
    ]
