"""Something that is no dictionary where a tensor dictionary is due."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from pytest_vdist import Coordinator, CoordinatorRun
from pytest_vdist.judge.cases import Case, assert_cases

NO_DICTIONARIES: list[Any] = [[("x", 1)], "text", 7, None]


def error_of(call: Callable[[], object]) -> tuple[str, str]:
    """Make the call and return type and text of what it raised, or empty texts."""
    try:
        call()
    except Exception as raised:
        return type(raised).__name__, str(raised)
    return "", ""


def assert_works_on(run: CoordinatorRun, world_size: int) -> None:
    """Assert that dictionaries and collectives go through after the refusals."""

    def body(group: Coordinator) -> list[Any]:
        got = []
        for src in range(group.world_size):
            values = {"src": src, "x": torch.full((2,), float(src), device=group.device)}
            received = group.broadcast_tensor_dict(values if group.rank_in_group == src else None, src=src)
            assert received is not None
            got.append((received["src"], received["x"].tolist()))
        return got

    assert run(body, world_size=world_size) == [[(src, [src] * 2) for src in range(world_size)]] * world_size
    assert_cases(run, [Case("all_gather", (7,), torch.float32)], world_size=world_size)


@pytest.mark.vdist_requirement("VD-ERR-006")
def test_a_broadcast_of_no_dictionary_raises_everywhere(
    coordinator_run: CoordinatorRun, world_size: int
) -> None:
    """Where the source has no dictionary, every rank raises, and the next broadcast is right."""

    def body(group: Coordinator) -> list[str]:
        return [
            f"src={src}, {type(wrong).__name__}"
            for src in range(group.world_size)
            for wrong in [*NO_DICTIONARIES, torch.ones(2, device=group.device)]
            if error_of(
                partial(group.broadcast_tensor_dict, wrong if group.rank_in_group == src else None, src)
            )
            == ("", "")
        ]

    accepted = coordinator_run(body, world_size=world_size)
    assert accepted == [[]] * world_size, "calls that did not raise, by rank"
    assert_works_on(coordinator_run, world_size)


@pytest.mark.vdist_world_size(min=2)
@pytest.mark.vdist_requirement("VD-ERR-006")
@pytest.mark.parametrize("blocking", [True, False], ids=["send", "isend"])
def test_a_send_of_no_dictionary_raises_on_both_sides(
    coordinator_run: CoordinatorRun, world_size: int, blocking: bool
) -> None:
    """Where the sender has no dictionary, it raises, and so does the receiver instead of waiting."""

    def body(group: Coordinator) -> list[str]:
        send: Any = group.send_tensor_dict if blocking else group.isend_tensor_dict
        accepted = []
        for wrong in [*NO_DICTIONARIES, torch.ones(2, device=group.device)]:
            error = "not concerned", ""
            if group.rank_in_group == 0:
                error = error_of(partial(send, wrong, dst=1))
            elif group.rank_in_group == 1:
                error = error_of(partial(group.recv_tensor_dict, src=0))
            accepted += [type(wrong).__name__] if error == ("", "") else []
        return accepted

    accepted = coordinator_run(body, world_size=world_size)
    assert accepted == [[]] * world_size, "calls that did not raise, by rank"
    assert_works_on(coordinator_run, world_size)


@pytest.mark.vdist_requirement("VD-ERR-008")
def test_the_error_names_what_is_no_dictionary(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """The source's error is a TypeError or ValueError that says dict and the type of what it was given."""

    def body(group: Coordinator) -> list[tuple[str, str, str]]:
        return [
            (
                type(wrong).__name__,
                *error_of(
                    partial(group.broadcast_tensor_dict, wrong if group.rank_in_group == 0 else None, 0)
                ),
            )
            for wrong in NO_DICTIONARIES
        ]

    for given, error, text in coordinator_run(body, world_size=world_size)[0]:
        assert error in {"TypeError", "ValueError"}, f"{given} gave {error}: {text!r}"
        assert "dict" in text, f"the error for {given} must say that a dict is due, got {text!r}"
        assert given in text, f"the error must name the type {given}, got {text!r}"
