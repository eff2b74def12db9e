"""Whether a call that could not finish ended as it must."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pytest_vdist.faults.calls import BlockingCall
from pytest_vdist.faults.waits import TYPED_ERRORS, Ended, Limit


def timeout_problem(call: BlockingCall, ended: Ended, limit: Limit) -> str:
    """Say what is wrong with the end of a call that waited alone; "" if nothing is.

    It ends by its limit, no sooner and no later, in an error. A call that is buffered may return instead.
    """
    if call.buffered and not ended.raised and ended.seconds <= limit.latest:
        return ""
    if problem := _lateness(call, ended, limit):
        return problem
    if not ended.raised:
        return f"{call.name} returned {ended.value!r} though no other rank took part"
    if ended.seconds < limit.earliest:
        return (
            f"{call.name} ended after {ended.seconds:.2f} s, before its limit of {limit.seconds:g} s "
            f"({call.limit}): {ended.error}"
        )
    return _type_problem(call, ended)


def wording_problem(call: BlockingCall, ended: Ended, group: str, rank: int, limit: Limit) -> str:
    """Say what the error of a call that waited alone does not name: operation, group, rank, limit."""
    if not ended.raised:
        return ""
    numbers = set(re.findall(r"\d+(?:\.\d+)?", ended.error.replace(group, "")))
    named = {
        f"the operation {call.operation}": call.operation in ended.error,
        f"the group {group!r}": group in ended.error,
        f"the rank {rank}": str(rank) in numbers,
        f"the limit of {limit.seconds:g} s": f"{limit.seconds:g}" in numbers,
    }
    missing = [what for what, there in named.items() if not there]
    return f"{call.name}: the error does not name {' and '.join(missing)}: {ended.error}" if missing else ""


def survivor_problem(
    call: BlockingCall, ended: Ended, limit: Limit, *, world_size: int, rank: int, peer: int
) -> str:
    """Say what is wrong with the end of a call on a rank that survived a fault of the `peer`; "" if nothing.

    It raises an error of communication within the limit. It may return only what it returns where all take
    part, and a barrier may not return at all.
    """
    if problem := _lateness(call, ended, limit):
        return problem
    if ended.raised:
        return _type_problem(call, ended)
    right = call.result(world_size, rank, peer)
    if ended.value != right:
        return f"{call.name} returned wrong data: {ended.value!r}, with all ranks it is {right!r}"
    if call.name == "barrier":
        return "barrier returned though a rank had not come"
    return ""


def unnoticed_problem(name: str, by_rank: Sequence[Ended]) -> str:
    """Say that all ranks took a fault for success, each of them."""
    if any(ended.raised or ended.endless for ended in by_rank):
        return ""
    values: list[Any] = [ended.value for ended in by_rank]
    return f"{name} returned on every rank, and nobody noticed: {values!r}"


def _lateness(call: BlockingCall, ended: Ended, limit: Limit) -> str:
    if ended.endless:
        return f"{call.name} had not ended long after its limit of {limit.seconds:g} s ({call.limit})"
    if ended.seconds > limit.latest:
        return (
            f"{call.name} ended after {ended.seconds:.2f} s, and its limit is {limit.seconds:g} s "
            f"({call.limit}): {ended.error or 'it returned'}"
        )
    return ""


def _type_problem(call: BlockingCall, ended: Ended) -> str:
    if TYPED_ERRORS & set(ended.kinds):
        return ""
    return f"{call.name} raised what is no error of communication: {ended.error}"
