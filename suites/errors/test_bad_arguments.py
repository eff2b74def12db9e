"""Bad arguments: refused by each rank on its own, before any traffic, with an error that helps."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import pytest
import torch

from pytest_vdist import Capabilities, Coordinator, CoordinatorRun
from pytest_vdist.judge.cases import Case, assert_cases

COLUMNS = 3
HALVES = [[0, 1], [2, 3]]
OWN_RANK_WORDS = ("another", "other", "itself", "self", "own", "same")


@dataclass(frozen=True)
class BadCall:
    """A call that must be refused. Its error should name `argument`, all `values` and one of `allowed`."""

    operation: str
    argument: str
    values: tuple[int, ...]
    allowed: tuple[int | str, ...]
    call: Callable[[], object]

    def __str__(self) -> str:
        return f"{self.operation}({self.argument}={', '.join(map(str, self.values))})"

    def error(self) -> Exception | None:
        """Make the call and return what it raised."""
        try:
            self.call()
        except Exception as raised:
            return raised
        return None

    def shortcomings(self) -> list[str]:
        """Make the call and return what is wrong with its error."""
        error = self.error()
        if not isinstance(error, ValueError | TypeError):
            return [f"{self}: must raise ValueError or TypeError, got {error!r}"]
        text = str(error)
        named = {int(number) for number in re.findall(r"-?\d+", text)}
        missing = [] if self.argument in text else [f"the argument {self.argument}"]
        missing += [f"the value {value}" for value in self.values if value not in named]
        if not any(part in (named if isinstance(part, int) else text) for part in self.allowed):
            missing.append(f"what is allowed (one of {self.allowed})")
        return [f"{self}: the error lacks {part}: {text!r}" for part in missing]


BadCalls = Callable[[Coordinator], list[BadCall]]


def ranks_out_of_range(group: Coordinator) -> list[BadCall]:
    size, x = group.world_size, torch.ones(4, device=group.device)
    calls: list[tuple[str, str, Callable[[int], object]]] = [
        ("broadcast", "src", lambda bad: group.broadcast(x, src=bad)),
        ("broadcast_object", "src", lambda bad: group.broadcast_object("object", src=bad)),
        ("broadcast_object_list", "src", lambda bad: group.broadcast_object_list(["object"], src=bad)),
        ("broadcast_tensor_dict", "src", lambda bad: group.broadcast_tensor_dict({"x": x}, src=bad)),
        ("gather", "dst", lambda bad: group.gather(x, dst=bad)),
        ("isend_object", "dst", lambda bad: group.isend_object("object", dst=bad)),
        ("isend_tensor_dict", "dst", lambda bad: group.isend_tensor_dict({"x": x}, dst=bad)),
        ("send_object", "dst", lambda bad: group.send_object("object", dst=bad)),
        ("send_tensor_dict", "dst", lambda bad: group.send_tensor_dict({"x": x}, dst=bad)),
        ("send", "dst", lambda bad: group.send(x, dst=bad)),
        ("recv", "src", lambda bad: group.recv((4,), x.dtype, src=bad)),
        ("recv_object", "src", lambda bad: group.recv_object(src=bad)),
        ("recv_tensor_dict", "src", lambda bad: group.recv_tensor_dict(src=bad)),
        ("irecv_tensor_dict", "src", lambda bad: group.irecv_tensor_dict(src=bad)),
    ]
    return [
        BadCall(operation, argument, (bad,), (size - 1, size), partial(call, bad))
        for operation, argument, call in calls
        for bad in (-1, -size - 1, size, size + 5)
    ]


def dims_out_of_range(group: Coordinator) -> list[BadCall]:
    rows = 2 * group.world_size
    made = []
    for shape in ((), (rows,), (rows, COLUMNS)):
        x = torch.ones(shape, device=group.device)
        calls: list[tuple[str, Callable[[torch.Tensor, int], object]]] = [
            ("all_gather", lambda x, dim: group.all_gather(x, dim=dim)),
            ("all_gatherv", lambda x, dim: group.all_gatherv(x, dim=dim)),
            ("all_gatherv", lambda x, dim: group.all_gatherv(x, dim=dim, sizes=[rows] * group.world_size)),
            ("all_gatherv", lambda x, dim: group.all_gatherv([x, x], dim=dim)),
            ("reduce_scatter", lambda x, dim: group.reduce_scatter(x, dim=dim)),
            ("reduce_scatterv", lambda x, dim: group.reduce_scatterv(x, dim=dim)),
            (
                "reduce_scatterv",
                lambda x, dim: group.reduce_scatterv(x, dim=dim, sizes=[2] * group.world_size),
            ),
            ("gather", lambda x, dim: group.gather(x, dim=dim)),
        ]
        bounds = (x.dim(), x.dim() - 1, -x.dim())
        made += [
            BadCall(operation, "dim", (bad,) if shape else (), bounds, partial(call, x, bad))
            for operation, call in calls
            for bad in (x.dim(), -x.dim() - 1, x.dim() + 7)
        ]
    return made


def indivisible_sizes(group: Coordinator) -> list[BadCall]:
    size, length = group.world_size, 2 * group.world_size + 1
    x = torch.ones(length, length, device=group.device)
    calls: list[tuple[str, Callable[[int], object]]] = [
        ("reduce_scatter", lambda dim: group.reduce_scatter(x, dim=dim)),
        ("reduce_scatterv", lambda dim: group.reduce_scatterv(x, dim=dim)),
    ]
    return [
        BadCall(operation, "dim", (length,), (size,), partial(call, dim))
        for operation, call in calls
        for dim in (0, -1)
    ]


def bad_sizes(group: Coordinator) -> list[BadCall]:
    size = group.world_size
    own, total = (
        torch.ones(2, COLUMNS, device=group.device),
        torch.ones(2 * size, COLUMNS, device=group.device),
    )
    too_few, too_many = [2] * (size - 1), [2] * (size + 1)
    negative = [-1] * size
    calls: list[tuple[str, list[int], tuple[int, ...], Callable[[list[int]], object]]] = [
        ("all_gatherv", sizes, (size, 2), lambda sizes: group.all_gatherv(own, sizes=sizes))
        for sizes in (too_few, too_many, negative, [4] * size)
    ]
    calls += [
        ("all_gatherv of a list", sizes, (size, 2), lambda sizes: group.all_gatherv([own, own], sizes=sizes))
        for sizes in (too_few, [4] * size)
    ]
    unbalanced = [[-1, 5, *[2] * (size - 2)]] if size > 1 else []
    calls += [
        (
            "reduce_scatterv",
            sizes,
            (size, 2 * size),
            lambda sizes: group.reduce_scatterv(total, dim=0, sizes=sizes),
        )
        for sizes in (too_few, too_many, negative, [4] * size, [1] * size, *unbalanced)
    ]
    return [
        BadCall(operation, "sizes", tuple(sizes), allowed, partial(call, sizes))
        for operation, sizes, allowed, call in calls
    ]


def the_own_rank_as_peer(group: Coordinator) -> list[BadCall]:
    here, x = group.rank_in_group, torch.ones(4, device=group.device)
    calls: list[tuple[str, str, Callable[[], object]]] = [
        ("send", "dst", lambda: group.send(x, dst=here)),
        ("send_object", "dst", lambda: group.send_object("object", dst=here)),
        ("isend_object", "dst", lambda: group.isend_object("object", dst=here)),
        ("send_tensor_dict", "dst", lambda: group.send_tensor_dict({"x": x}, dst=here)),
        ("isend_tensor_dict", "dst", lambda: group.isend_tensor_dict({"x": x}, dst=here)),
        ("recv", "src", lambda: group.recv((4,), x.dtype, src=here)),
        ("recv_object", "src", lambda: group.recv_object(src=here)),
        ("recv_tensor_dict", "src", lambda: group.recv_tensor_dict(src=here)),
        ("irecv_tensor_dict", "src", lambda: group.irecv_tensor_dict(src=here)),
    ]
    return [
        BadCall(operation, argument, (here,), OWN_RANK_WORDS, call) for operation, argument, call in calls
    ]


def all_bad_calls(group: Coordinator) -> list[BadCall]:
    made = ranks_out_of_range(group) + dims_out_of_range(group) + bad_sizes(group)
    if group.world_size > 1:
        made += indivisible_sizes(group) + the_own_rank_as_peer(group)
    return made


def supported(calls: Sequence[BadCall], unsupported: Sequence[str]) -> list[BadCall]:
    return [bad for bad in calls if bad.operation.split()[0] not in unsupported]


def assert_refused_by_each_rank_alone(
    run: CoordinatorRun,
    make: BadCalls,
    world_size: int,
    capabilities: Capabilities,
    group_ranks: list[list[int]] | None = None,
) -> None:
    """Assert that each rank is refused while no other makes a call, and that the group works on after all.

    A call with traffic would wait for the others until the deadline.
    """

    def alone(group: Coordinator, caller: int, unsupported: list[str]) -> list[str]:
        if group.rank != caller:
            return []
        return [str(bad) for bad in supported(make(group), unsupported) if bad.error() is None]

    for caller in range(world_size):
        results = run(
            alone, caller, list(capabilities.unsupported), world_size=world_size, group_ranks=group_ranks
        )
        assert results[caller] == [], f"rank {caller}, alone, was not refused"
    cases = [
        Case("all_gather", (3,), torch.float32, values="movement"),
        Case("broadcast", (5,), torch.float32, {"src": 1 if world_size > 1 else 0}, values="movement"),
    ]
    assert_cases(run, cases, world_size=world_size, group_ranks=group_ranks)


@pytest.mark.vdist_requirement("VD-ERR-001")
def test_ranks_outside_the_group_are_refused(
    coordinator_run: CoordinatorRun, world_size: int, capabilities: Capabilities
) -> None:
    """A source or destination below 0 or from the world size on is refused by every operation."""
    assert_refused_by_each_rank_alone(coordinator_run, ranks_out_of_range, world_size, capabilities)


@pytest.mark.vdist_world_size(min=4, max=4)
@pytest.mark.vdist_requirement("VD-ERR-001")
def test_global_ranks_outside_a_subgroup_are_refused(
    coordinator_run: CoordinatorRun, world_size: int, capabilities: Capabilities
) -> None:
    """In halves of the world, a rank that the half does not have is refused though the world has it."""
    assert_refused_by_each_rank_alone(
        coordinator_run, ranks_out_of_range, world_size, capabilities, group_ranks=HALVES
    )


@pytest.mark.vdist_requirement("VD-ERR-002")
def test_dimensions_that_the_input_lacks_are_refused(
    coordinator_run: CoordinatorRun, world_size: int, capabilities: Capabilities
) -> None:
    """A dimension out of range is refused, for tensors of zero, one and two dimensions."""
    assert_refused_by_each_rank_alone(coordinator_run, dims_out_of_range, world_size, capabilities)


@pytest.mark.vdist_world_size(min=2)
@pytest.mark.vdist_requirement("VD-ERR-003")
def test_dimensions_that_do_not_divide_are_refused(
    coordinator_run: CoordinatorRun, world_size: int, capabilities: Capabilities
) -> None:
    """Reduce-scatter in equal parts of a dimension that has no equal parts is refused."""
    assert_refused_by_each_rank_alone(coordinator_run, indivisible_sizes, world_size, capabilities)


@pytest.mark.vdist_requirement("VD-ERR-004")
def test_sizes_that_cannot_be_are_refused(
    coordinator_run: CoordinatorRun, world_size: int, capabilities: Capabilities
) -> None:
    """Too few, too many and negative sizes, and those that the input's shape contradicts, are refused."""
    assert_refused_by_each_rank_alone(coordinator_run, bad_sizes, world_size, capabilities)


@pytest.mark.vdist_world_size(min=2)
@pytest.mark.vdist_requirement("VD-ERR-005")
def test_messages_to_oneself_are_refused(
    coordinator_run: CoordinatorRun, world_size: int, capabilities: Capabilities
) -> None:
    """Every call that sends to, or receives from, the own rank is refused."""
    assert_refused_by_each_rank_alone(coordinator_run, the_own_rank_as_peer, world_size, capabilities)


@pytest.mark.vdist_requirement("VD-ERR-008")
def test_errors_name_argument_value_and_what_is_allowed(
    coordinator_run: CoordinatorRun, world_size: int, capabilities: Capabilities
) -> None:
    """The error of every bad call is a ValueError or TypeError with argument, value and allowed values."""

    def body(group: Coordinator, unsupported: list[str]) -> list[str]:
        calls = supported(all_bad_calls(group), unsupported)
        return [shortcoming for bad in calls for shortcoming in bad.shortcomings()]

    results = coordinator_run(body, list(capabilities.unsupported), world_size=world_size)
    assert results == [[]] * world_size


@pytest.mark.vdist_world_size(min=2)
@pytest.mark.vdist_requirement("VD-ERR-009")
def test_the_next_collective_is_right(
    coordinator_run: CoordinatorRun, world_size: int, capabilities: Capabilities
) -> None:
    """After each bad call, made by all ranks, an all-reduce and an object broadcast give what they should."""

    def body(group: Coordinator, unsupported: list[str]) -> list[str]:
        wrong = []
        for number, bad in enumerate(supported(all_bad_calls(group), unsupported)):
            bad.error()
            x = torch.full((3,), float(100 * number + group.rank), device=group.device)
            expected = float(100 * number * world_size + sum(range(world_size)))
            src = number % world_size
            after = group.all_reduce(x).tolist(), group.broadcast_object((number, group.rank), src=src)
            if after != ([expected] * 3, (number, src)):
                wrong.append(f"after {bad}: {after}")
        return wrong

    results = coordinator_run(body, list(capabilities.unsupported), world_size=world_size)
    assert results == [[]] * world_size
