"""Names for what a rank does without torch.distributed: torch's profiler shows them, and test runners.

`record_function` is what torch has for this. The convention of pytest-vdist, whose runner says by it where
ranks wait: the name is `vdist::` and the operation, and the arguments are the name of the process group, what
distinguishes the call (peer or root) and the tensor, with tabs between them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.distributed as dist
from torch.profiler import record_function

from .records import WITH_ROOT, Call


class Labels:
    """The labels of one process group, in whose place something else moves the data."""

    def __init__(self, group: dist.ProcessGroup, ranks: Sequence[int]) -> None:
        """`ranks` are the global ranks in the order given; labels count as torch does, in sorted order."""
        self._group = group.group_name
        self._torch_ranks = [sorted(ranks).index(rank) for rank in ranks]

    def collective(self, call: Call) -> record_function:
        """Label a collective, to be entered around all that it does."""
        detail, tensor = "", ""
        if call.operation in WITH_ROOT:
            detail = f"with root {self._torch_ranks[call.root]}"
        if call.dtype is not None:
            tensor = f"{str(call.dtype).removeprefix('torch.')}[{call.size // call.dtype.itemsize}]"
        return self._label(call.operation.name.lower(), detail, tensor)

    def send(self, dst: int) -> record_function:
        return self._label("send", f"to rank {self._torch_ranks[dst]}", "")

    def recv(self, src: int) -> record_function:
        return self._label("recv", f"from rank {self._torch_ranks[src]}", "")

    def _label(self, operation: str, detail: str, tensor: str) -> record_function:
        return record_function(f"vdist::{operation}", f"{self._group}\t{detail}\t{tensor}")
