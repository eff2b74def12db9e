"""`vdist matrix`: the jobs of a pipeline, one for each combination of device, mode and profile."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Sequence

from pytest_vdist.certificate.report.folder import ReportError
from pytest_vdist.certificate.requirements import registry

_SPLIT = {"off": ("off",), "on": ("on",), "both": ("off", "on")}
MAX_SHARDS = 256
_COMPILE = ("eager", "aot_eager", "inductor", "cudagraph", "all")


def jobs(
    backend: str, split_group: str, compile_modes: str, profiles: str | None, shards: int = 1
) -> list[dict[str, str]]:
    """Return for each job its name, its device, and its arguments for pytest; `shards` of them for each.

    With profiles, a job runs all that a profile needs, so `split_group` and `compile_modes` are passed on as
    they are: a profile that is judged in parts is judged by none. Raises ReportError for an unknown value.
    """
    if not 1 <= shards <= MAX_SHARDS:
        raise ReportError(f"--shards must be a whole number from 1 to {MAX_SHARDS}, got {shards}")
    whole = _whole_jobs(backend, split_group, compile_modes, profiles)
    return [_shard(job, number, shards) for job in whole for number in range(1, shards + 1)]


def _whole_jobs(
    backend: str, split_group: str, compile_modes: str, profiles: str | None
) -> list[dict[str, str]]:
    backends = _names("--backend", backend)
    modes = _names("--compile", compile_modes, _COMPILE)
    if split_group not in _SPLIT:
        raise ReportError(f"--split-group must be off, on or both, got {split_group!r}")
    if profiles is None:
        each_mode = itertools.product(backends, _SPLIT[split_group], modes)
        return [_job(name, split, mode, None) for name, split, mode in each_mode]
    chosen = _names("--profile", profiles, tuple(registry().profiles))
    each_profile = itertools.product(backends, chosen)
    return [_job(name, split_group, ",".join(modes), profile) for name, profile in each_profile]


def _shard(job: dict[str, str], number: int, count: int) -> dict[str, str]:
    if count == 1:
        return job
    return {
        **job,
        "name": f"{job['name']}-{number}of{count}",
        "arguments": f"{job['arguments']} --vdist-shard={number}/{count}",
    }


def _names(option: str, text: str, known: Sequence[str] = ()) -> list[str]:
    found = [part.strip() for part in text.split(",")]
    for name in found:
        if not name or (known and name not in known):
            among = f"names among {', '.join(known)}" if known else "names"
            raise ReportError(f"{option} must hold {among}, separated by commas, got {text!r}")
    if len(set(found)) < len(found):
        raise ReportError(f"{option} must not repeat, got {text!r}")
    return found


def _job(backend: str, split_group: str, mode: str, profile: str | None) -> dict[str, str]:
    arguments = [
        f"--vdist-backend={backend}",
        f"--vdist-split-group={split_group}",
        f"--vdist-compile={mode}",
    ]
    group = {"off": "new_group", "on": "split_group"}.get(split_group, "")
    parts = [backend, group, mode.replace(",", "-")]
    if profile is not None:
        arguments.append(f"--vdist-profile={profile}")
        parts = [backend, profile]
    return {"name": "-".join(filter(None, parts)), "backend": backend, "arguments": shlex.join(arguments)}
