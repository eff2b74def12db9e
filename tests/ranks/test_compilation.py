from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from pytest_vdist import DistributedRun, compiled
from pytest_vdist.reference_impl.wire import fresh

_library: Any = torch.library.Library


def square(x: torch.Tensor) -> torch.Tensor:
    return x * x


def test_graphs_are_counted(distributed_run: DistributedRun) -> None:
    """One graph for equal calls; another for other sizes; two more where a branch breaks the graph."""

    def branching(x: torch.Tensor) -> torch.Tensor:
        return x @ x if x.sum() > 0 else x

    def body() -> list[int]:
        same, other = compiled(square, "aot_eager"), compiled(lambda x: x * x, "aot_eager", dynamic=False)
        broken = compiled(branching, "aot_eager", fullgraph=False)
        for size in (2, 3, 4):
            same(torch.ones(2))
            other(torch.ones(size))
        broken(torch.ones(2, 2))
        return [same.graphs, other.graphs, broken.graphs, compiled(square, "eager").graphs]

    assert distributed_run(body, world_size=1) == [[1, 3, 2, 0]]


def test_a_run_finds_nothing_that_earlier_runs_have_compiled(distributed_run: DistributedRun) -> None:
    """A function that stays in its process can be compiled by torch 8 times, and by nine runs 9 times."""

    def body() -> int:
        function = compiled(fresh, "aot_eager")
        function(torch.ones(2))
        return function.graphs

    assert [distributed_run(body, world_size=1) for _ in range(9)] == [[1]] * 9


def test_ranks_share_a_cache_that_is_gone_after_the_session(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)  # torch may have set it in this process
    pytester.makepyfile(
        """
        import os
        from pathlib import Path
        import torch
        from pytest_vdist import compiled

        def test_cache(distributed_run):
            def body():
                w = torch.eye(2)
                compiled(lambda x: x @ w, "inductor")(torch.ones(2, 2))
                return os.environ["TORCHINDUCTOR_CACHE_DIR"]

            folder, other = distributed_run(body)
            assert folder == other and any(Path(folder).rglob("*.py"))
            Path("folder.txt").write_text(folder)
        """
    )
    pytester.runpytest_subprocess().assert_outcomes(passed=1)
    folder = Path((pytester.path / "folder.txt").read_text())
    assert folder.name == "inductor"
    assert not folder.parent.exists()


def test_a_cache_that_the_user_names_is_used(
    distributed_run: DistributedRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    assert distributed_run(lambda: os.environ["TORCHINDUCTOR_CACHE_DIR"]) == [str(tmp_path)] * 2


@pytest.mark.parametrize("ci", ["", "true"])
def test_an_operator_that_returns_its_input_makes_torch_warn_in_ci_too(
    distributed_run: DistributedRun, ci: str
) -> None:
    def body() -> list[str]:
        library = _library("vdist_tests", "FRAGMENT")
        library.define("same(Tensor x) -> Tensor")
        library.impl("same", lambda x: x, "CPU")
        torch.library.register_fake("vdist_tests::same", torch.empty_like, lib=library)
        operator = torch.ops.vdist_tests.same
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            compiled(lambda x: operator(x * 2) + 1, "aot_eager")(torch.ones(2))
        return [str(warning.message) for warning in caught]

    env = {"CI": ci} if ci else {}
    ((first, *_),) = distributed_run(body, world_size=1, env=env, fresh=True)
    assert "vdist_tests::same" in first
    assert "must not also be an input" in first


def test_a_cuda_graph_refuses_what_is_not_on_its_device(distributed_run: DistributedRun) -> None:
    def body() -> str:
        with pytest.raises(TypeError) as refused:
            compiled(square, "cudagraph")(torch.ones(1))
        return str(refused.value)

    assert distributed_run(body, world_size=1) == [
        "a CUDA graph takes tensors on a CUDA device, and argument 0 is cpu; "
        "bind other values in the function, or use another compile mode"
    ]
