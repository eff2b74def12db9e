"""Notes, in a rank, each call of a process group's method, whoever makes it."""

from __future__ import annotations

import functools
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch.profiler import record_function

from pytest_vdist.ranks import _compat
from pytest_vdist.ranks.ledger import POINT_TO_POINT, LedgerEntry, LedgerPage
from pytest_vdist.ranks.messages import Traffic

_HANDLES_KEPT = 256
# What goes past torch.distributed is seen if it runs in `record_function("vdist::" + operation, arguments)`,
# whose arguments are group, detail and tensor with tabs between them; docs/your-device.md says so.
_LABEL = "vdist::"
# Methods of torch.distributed.ProcessGroup, 2.11 to 2.15, and the names under which users know them.
_METHODS = {
    "allreduce": "all_reduce",
    "allreduce_coalesced": "all_reduce_coalesced",
    "allgather": "all_gather",
    "allgather_coalesced": "all_gather_coalesced",
    "_allgather_base": "all_gather_into_tensor",
    "all_gather_single": "all_gather_single",
    "allgather_into_tensor_coalesced": "all_gather_into_tensor_coalesced",
    "all_gather_single_coalesced": "all_gather_single_coalesced",
    "alltoall": "all_to_all",
    "alltoall_base": "all_to_all_single",
    "all_to_all_single": "all_to_all_single",
    "barrier": "barrier",
    "broadcast": "broadcast",
    "gather": "gather",
    "reduce": "reduce",
    "reduce_scatter": "reduce_scatter",
    "_reduce_scatter_base": "reduce_scatter_tensor",
    "reduce_scatter_single": "reduce_scatter_single",
    "reduce_scatter_tensor_coalesced": "reduce_scatter_tensor_coalesced",
    "reduce_scatter_single_coalesced": "reduce_scatter_single_coalesced",
    "scatter": "scatter",
    "send": "send",
    "recv": "recv",
    "recv_anysource": "recv_anysource",
}


class ProcessGroupWatch:
    """Writes the ledger of this rank, and counts its messages per group."""

    def __init__(self, page: LedgerPage) -> None:
        self._page = page
        self._collectives: Counter[str] = Counter()
        self._messages: Counter[str] = Counter()
        self._sent: Counter[tuple[str, int]] = Counter()
        self._received: Counter[tuple[str, int]] = Counter()
        self._handles: OrderedDict[int, int] = OrderedDict()
        self._paused = False

    def install(self) -> None:
        """Wrap the methods for the rest of this process's life."""
        for method, operation in _METHODS.items():
            original = getattr(dist.ProcessGroup, method, None)
            if original is not None:
                setattr(dist.ProcessGroup, method, self._noting(original, operation))
        dist.Work.wait = self._noting_wait(dist.Work.wait)  # type: ignore[method-assign]
        self._note_labels()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Note and count no calls, which takes longer than some calls do."""
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before

    def begin_run(self) -> None:
        """Count from the beginning again, also where a function has left a pause open."""
        self._paused = False
        self._page.clear()
        for counter in (self._collectives, self._messages, self._sent, self._received, self._handles):
            counter.clear()

    def calls(self) -> dict[str, int]:
        """Return how many calls this run has made so far of each group's methods, by the group's name."""
        return dict(self._collectives + self._messages)

    def traffic(self, group: dist.ProcessGroup) -> Traffic:
        """Return this rank's traffic in `group`: messages of this run, collectives since it was made."""
        name = group.group_name
        return Traffic(
            collectives=_compat.sequence_number(group),
            sent={peer: count for (of, peer), count in self._sent.items() if of == name},
            received={peer: count for (of, peer), count in self._received.items() if of == name},
        )

    def _noting(self, original: Callable[..., Any], operation: str) -> Callable[..., Any]:
        @functools.wraps(original)
        def call(group: dist.ProcessGroup, *args: Any, **kwargs: Any) -> Any:
            if self._paused:
                return original(group, *args, **kwargs)
            index = self._page.enter(self._entry(group, operation, args))
            try:
                handle = original(group, *args, **kwargs)
            finally:
                self._page.leave()
            self._remember(handle, index)
            return handle

        return call

    def _noting_wait(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def wait(handle: dist.Work, *args: Any, **kwargs: Any) -> Any:
            index = None if self._paused else self._handles.get(id(handle))
            if index is not None:
                self._page.reenter(index)
            try:
                return original(handle, *args, **kwargs)
            finally:
                if index is not None:
                    self._page.leave()

        return wait

    def _note_labels(self) -> None:
        enter, leave = record_function.__enter__, record_function.__exit__

        @functools.wraps(enter)
        def noted_enter(label: record_function) -> Any:
            if label.name.startswith(_LABEL) and not self._paused:
                self._page.enter(self._labelled_entry(label.name.removeprefix(_LABEL), label.args or ""))
            return enter(label)  # type: ignore[no-untyped-call]

        @functools.wraps(leave)
        def noted_leave(label: record_function, *raised: Any) -> Any:
            if label.name.startswith(_LABEL) and not self._paused:
                self._page.leave()
            return leave(label, *raised)

        record_function.__enter__ = noted_enter  # type: ignore[method-assign]
        record_function.__exit__ = noted_leave  # type: ignore[method-assign]

    def _labelled_entry(self, operation: str, arguments: str) -> LedgerEntry:
        name, detail, tensors = [*arguments.split("\t"), "", "", ""][:3]
        label = next(
            (_compat.group_label(each) for each in _compat.live_process_groups() if each.group_name == name),
            name,
        )
        return LedgerEntry(operation, label, name, self._count(operation, name), detail, tensors)

    def _count(self, operation: str, group: str) -> int:
        counter = self._messages if operation in POINT_TO_POINT else self._collectives
        counter[group] += 1
        return counter[group]

    def _remember(self, handle: object, index: int) -> None:
        self._handles[id(handle)] = index
        if len(self._handles) > _HANDLES_KEPT:
            self._handles.popitem(last=False)

    def _entry(self, group: dist.ProcessGroup, operation: str, args: tuple[Any, ...]) -> LedgerEntry:
        name = group.group_name
        number = self._count(operation, name)
        detail = self._detail(name, operation, args)
        return LedgerEntry(operation, _compat.group_label(group), name, number, detail, _tensors_text(args))

    def _detail(self, group: str, operation: str, args: tuple[Any, ...]) -> str:
        if operation == "send" and len(args) > 1:
            self._sent[group, int(args[1])] += 1
            return f"to rank {args[1]}"
        if operation == "recv" and len(args) > 1:
            self._received[group, int(args[1])] += 1
            return f"from rank {args[1]}"
        if operation == "recv_anysource":
            self._received[group, -1] += 1
            return "from any rank"
        return _options_text(args[-1]) if args else ""


def _options_text(options: object) -> str:
    """Name what an options object of torch says beyond timeouts: the root, and a reduction that is no sum."""
    root = getattr(options, "rootRank", None)
    reduction = getattr(getattr(options, "reduceOp", None), "op", None)
    parts = [f"with root {root}"] if root is not None and root >= 0 else []
    if reduction is not None and reduction.name != "SUM":
        parts.append(f"with {reduction.name}")
    return " ".join(parts)


def _tensors_text(args: tuple[Any, ...]) -> str:
    tensor = _first_tensor(args)
    if tensor is None:
        return ""
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"


def _first_tensor(value: Any) -> torch.Tensor | None:
    if isinstance(value, torch.Tensor):
        return value
    if isinstance(value, list | tuple):
        for item in value[:2]:
            found = _first_tensor(item)
            if found is not None:
                return found
    return None
