"""The VDIST_* environment variables that the reference reads."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from datetime import timedelta

DISTRIBUTED_TIMEOUT = "VDIST_DISTRIBUTED_TIMEOUT_SECONDS"
CPU_DISTRIBUTED_TIMEOUT = "VDIST_CPU_DISTRIBUTED_TIMEOUT_SECONDS"
USE_SPLIT_GROUP = "VDIST_DISTRIBUTED_USE_SPLIT_GROUP"
SHARED_MEMORY = "VDIST_SHARED_MEMORY"
SYMMETRIC_MEMORY = "VDIST_SYMMETRIC_MEMORY"
LONGEST_TIMEOUT = timedelta(days=1)


def distributed_timeout(environ: Mapping[str, str] = os.environ) -> timedelta | None:
    """Read the timeout of device groups from its variable; None keeps the backend's own."""
    return _timeout_variable(DISTRIBUTED_TIMEOUT, environ)


def cpu_distributed_timeout(environ: Mapping[str, str] = os.environ) -> timedelta | None:
    """Read the timeout of CPU groups from its variable; None keeps the backend's own."""
    return _timeout_variable(CPU_DISTRIBUTED_TIMEOUT, environ)


def use_split_group(environ: Mapping[str, str] = os.environ) -> bool:
    """Read whether subgroups are made by `split_group` instead of `new_group`: "1" or "0", which is default.

    Raises ValueError for anything else.
    """
    return _switch(
        USE_SPLIT_GROUP,
        environ,
        default="0",
        advice="set 1 to make subgroups by split_group, or unset it to make them by new_group",
    )


def shared_memory_is_wanted(environ: Mapping[str, str] = os.environ) -> bool | None:
    """Read whether groups on the CPU use shared memory: "1" or "0"; None where the variable is not set.

    Raises ValueError for anything else.
    """
    if SHARED_MEMORY not in environ:
        return None
    return _switch(
        SHARED_MEMORY,
        environ,
        default="1",
        advice="set 0 to keep groups on the CPU to gloo, or unset it to let them use shared memory",
    )


def symmetric_memory_is_wanted(environ: Mapping[str, str] = os.environ) -> bool:
    """Read whether groups on CUDA sum small tensors in symmetric memory: "1" or "0", which is default.

    Raises ValueError for anything else.
    """
    return _switch(
        SYMMETRIC_MEMORY,
        environ,
        default="0",
        advice="set 1 to sum small tensors in memory that the GPUs map from each other, or unset it for NCCL",
    )


def as_timeout(value: float | timedelta | None, name: str) -> timedelta | None:
    """Turn seconds or a timedelta into a timedelta; None stays None.

    Raises ValueError, naming `name` and the value, unless it is above zero and at most a day.
    """
    if value is None:
        return None
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"{name}={value!r}: give seconds, a timedelta, or None for the backend's own timeout")
    if not math.isfinite(seconds) or not 0 < seconds <= LONGEST_TIMEOUT.total_seconds():
        raise ValueError(
            f"{name}={value!r}: a timeout is above 0 and at most {LONGEST_TIMEOUT.total_seconds():.0f} "
            "seconds (one day); leave it unset for the backend's own timeout"
        )
    return timedelta(seconds=seconds)


def _switch(variable: str, environ: Mapping[str, str], *, default: str, advice: str) -> bool:
    text = environ.get(variable, default)
    if text not in {"0", "1"}:
        raise ValueError(f"environment variable {variable}={text!r} is not 0 or 1; {advice}")
    return text == "1"


def _timeout_variable(variable: str, environ: Mapping[str, str]) -> timedelta | None:
    text = environ.get(variable)
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        raise ValueError(
            f"environment variable {variable}={text!r} is not a number of seconds; "
            "set a number such as 60, or unset it for the backend's own timeout"
        ) from None
    return as_timeout(seconds, f"environment variable {variable}")
