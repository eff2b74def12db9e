"""Imported before ranks on a CPU are forked, where vLLM is judged: its import takes longer than most tests.

None of these imports starts a thread. A configuration is made and dropped, because the first one imports as
much again. What is there then, no rank need look through for garbage. An error is left to the ranks, which
meet it again and can tell it.
"""

from __future__ import annotations

import gc
from contextlib import suppress
from importlib import import_module

from pytest_vdist.implementations.vllm import prepare_import

_MODULES = (
    "vllm.distributed.parallel_state",
    "vllm.distributed.device_communicators.cpu_communicator",
    "vllm.distributed.device_communicators.shm_broadcast",
)

prepare_import("cpu")
with suppress(Exception):
    for _name in _MODULES:
        import_module(_name)
    import_module("vllm.config").VllmConfig()
gc.collect()
gc.freeze()
