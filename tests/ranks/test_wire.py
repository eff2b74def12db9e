"""What travels by value, and what a body needs at the other end."""

from __future__ import annotations

import concurrent.futures
import inspect
import types
from typing import Any

import pytest
import torch
import torch.distributed as dist
from cloudpickle import cloudpickle as cloudpickle_module

from pytest_vdist.ranks import _compat, wire


def _uses_submodules() -> object:
    return concurrent.futures.ThreadPoolExecutor, dist.get_rank, torch.nn.functional.relu


def _uses_none() -> int:
    return len([torch])


@pytest.mark.parametrize("function", [_uses_submodules, _uses_none], ids=["submodules", "none"])
def test_the_quick_search_finds_the_submodules_that_cloudpickle_finds(function: types.FunctionType) -> None:
    dependencies = [concurrent, dist, torch, 3]
    wanted = cloudpickle_module._find_imported_submodules(function.__code__, dependencies)

    found = _compat._imported_submodules(function.__code__, dependencies)

    assert {module.__name__ for module in found} == {module.__name__ for module in wanted}


def test_code_keeps_its_file_and_lines_for_stacks_and_failures() -> None:
    def outer() -> Any:
        def inner() -> Any:
            return inspect.currentframe()

        return inner()

    function, _, _ = wire.load_body(wire.dump_body(outer, (), {}))

    assert function.__code__ is not outer.__code__
    for travelled, own in ((function().f_code, outer().f_code), (function.__code__, outer.__code__)):
        assert (travelled.co_filename, travelled.co_firstlineno) == (__file__, own.co_firstlineno)


def test_a_tensor_of_one_element_travels_whatever_its_stride() -> None:
    tensor = torch.tensor([[7.0, 8.0]])[:, ::2]
    assert tensor.stride() == (2, 2)

    assert torch.equal(wire.load_result(wire.dump_result(tensor)), tensor)


def test_cloudpickle_is_left_as_it_was() -> None:
    before = cloudpickle_module._find_imported_submodules

    with _compat.quick_submodule_search():
        assert cloudpickle_module._find_imported_submodules is not before

    assert cloudpickle_module._find_imported_submodules is before


def test_a_rewritten_module_can_be_mentioned_as_an_object(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(checks="def check(value):\n    assert value == 3\n")
    pytester.makeconftest("import pytest\npytest.register_assert_rewrite('checks')\n")
    pytester.makepyfile(
        """
        import checks

        def test_it(distributed_run):
            distributed_run(lambda: checks.check(3))
            distributed_run(lambda: checks.check(2 + 2))
        """
    )

    result = pytester.runpytest_subprocess("-q", "-p", "no:cacheprovider")

    result.stdout.fnmatch_lines(["*ranks 0, 1 of 2 raised AssertionError: assert 4 == 3*"])
