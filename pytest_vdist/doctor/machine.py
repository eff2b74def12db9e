"""The machine: interpreter, kernel, memory, cores and limits. Sizes are in bytes."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from pytest_vdist.doctor.findings import Finding

MANY_RANKS = 64
GIB = 1 << 30
MIB = 1 << 20
# What a rank costs, and what is used without any. Descriptors of the controller and threads are as measured
# with gloo on Linux; the memory leaves room for the function's own above the 23 MiB (PSS) of an idle rank.
_BYTES_PER_RANK = 60 * MIB
_DESCRIPTORS_PER_RANK, _DESCRIPTORS_OTHERWISE = 9, 128
_THREADS_PER_RANK, _THREADS_OTHERWISE = 5, 64
SHARED_MEMORY = "/dev/shm"  # noqa: S108 - nothing is put there
_SMALL_SHARED_MEMORY = 64 * MIB  # what container engines give by default
_LIFELINE_PATIENCE = 10.0

# What each rank does to die with its controller; see pytest_vdist.ranks.worker.
_LIFELINE_PROGRAM = """
import fcntl, os, signal, sys, time
fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
fcntl.fcntl(0, fcntl.F_SETSIG, signal.SIGKILL)
fcntl.fcntl(0, fcntl.F_SETFL, fcntl.fcntl(0, fcntl.F_GETFL) | os.O_ASYNC)
os.write(1, b"r")
time.sleep(1)
"""


def python(version: tuple[int, ...], executable: str, platform: str) -> Finding:
    """Judge the interpreter and the operating system."""
    value = f"{'.'.join(map(str, version[:3]))} on {platform} ({executable})"
    if platform != "linux":
        problem = f"ranks need Linux, this is {platform}"
        return Finding("Python", value, problem, "run on Linux, or in a Linux container")
    return Finding("Python", value)


def kernel_features(missing: Mapping[str, str]) -> Finding:
    """Judge what the kernel lacks of what the rank processes are built on: reasons by feature."""
    if not missing:
        return Finding("kernel features", "memfd, pidfd and F_SETSIG work")
    lacking = "; ".join(f"{feature}: {reason}" for feature, reason in missing.items())
    problem = f"the kernel, or the sandbox around it, lacks {lacking}"
    return Finding(
        "kernel features", f"without {', '.join(missing)}", problem, "use Linux 5.3 or newer, not emulated"
    )


def missing_kernel_features() -> dict[str, str]:
    """Try each feature, and return the reasons of those that do not work."""
    trials: dict[str, Callable[[], None]] = {
        "memfd": lambda: os.close(os.memfd_create("vdist-doctor")),
        "pidfd": lambda: os.close(os.pidfd_open(os.getpid())),
        "F_SETSIG": _try_lifeline,
    }
    missing = {}
    for feature, attempt in trials.items():
        try:
            attempt()
        except (AttributeError, OSError, subprocess.SubprocessError) as error:
            missing[feature] = str(error)
    return missing


def _try_lifeline() -> None:
    """Raise OSError unless the kernel kills a process when the other end of its pipe closes."""
    command = [sys.executable, "-I", "-S", "-c", _LIFELINE_PROGRAM]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:  # noqa: S603 - this interpreter
        assert process.stdin is not None
        assert process.stdout is not None
        if process.stdout.read(1) != b"r":
            raise OSError(errno.ENOSYS, "a pipe cannot be told to send a signal")
        process.stdin.close()
        code = process.wait(_LIFELINE_PATIENCE)
    if code != -signal.SIGKILL:
        raise OSError(errno.ENOSYS, "the end of a pipe sent no signal, so ranks may outlive a killed pytest")


def memory(total: int, available: int, limit: int | None) -> Finding:
    """Judge the memory; `limit` is what the control group leaves to this process, if it says so."""
    usable = available if limit is None else min(available, limit)
    ranks = usable // _BYTES_PER_RANK
    restricted = "" if limit is None else f", {_size(limit)} left by the control group"
    value = f"{_size(available)} of {_size(total)} available{restricted}; for about {ranks} ranks on the CPU"
    if ranks >= MANY_RANKS:
        return Finding("memory", value)
    problem = f"there is memory for about {ranks} ranks, not for {MANY_RANKS}"
    return Finding("memory", value, problem, "end other programs, raise the limit of the container")


def cores(count: int, usable: int, quota: float | None) -> Finding:
    """Describe the cores; `quota` is what the control group allows at a time, in cores."""
    restricted = "" if quota is None else f", the control group allows {quota:g} at a time"
    return Finding("cores", f"{count}, this process may use {usable}{restricted}")


def shared_memory(size: int, free: int, *, writable: bool) -> Finding:
    """Judge /dev/shm, through which communicators such as NCCL move data within a machine."""
    value = f"{SHARED_MEMORY}: {_size(free)} of {_size(size)} free"
    remedy = "in a container, start it with --shm-size=1g or --ipc=host"
    if not writable:
        return Finding(
            "shared memory", value, f"{SHARED_MEMORY} is not writable", "mount a tmpfs there, mode 1777"
        )
    if free <= _SMALL_SHARED_MEMORY:
        problem = f"{SHARED_MEMORY} has {_size(free)} free, NCCL and data loaders use up more"
        return Finding("shared memory", value, problem, remedy)
    return Finding("shared memory", value)


def shared_memory_here(path: str) -> Finding:
    """Ask for the state of /dev/shm, which may be missing."""
    try:
        state = os.statvfs(path)
    except FileNotFoundError:
        return Finding("shared memory", f"no {path}", f"there is no {path}", "mount a tmpfs there, mode 1777")
    return shared_memory(
        state.f_blocks * state.f_frsize, state.f_bavail * state.f_frsize, writable=os.access(path, os.W_OK)
    )


def open_files(soft: int, hard: int) -> Finding:
    """Judge the limit on file descriptors: the controller holds some for each rank."""
    return _limit(
        "open files (ulimit -n)", soft, hard, _DESCRIPTORS_PER_RANK, _DESCRIPTORS_OTHERWISE, flag="-n"
    )


def processes(soft: int, hard: int, group_limit: int | None) -> Finding:
    """Judge the limits on processes and threads, the user's and the control group's."""
    name = "processes (ulimit -u)"
    if group_limit is not None and (soft == resource.RLIM_INFINITY or group_limit < soft):
        found = _limit(name, group_limit, group_limit, _THREADS_PER_RANK, _THREADS_OTHERWISE, flag="-u")
        remedy = "start the container with a higher --pids-limit" if found.problem else None
        return Finding(name, f"{found.value}, by the control group", found.problem, remedy)
    return _limit(name, soft, hard, _THREADS_PER_RANK, _THREADS_OTHERWISE, flag="-u")


def core_files(soft: int) -> Finding:
    """Describe whether a rank that crashes leaves a core file."""
    name = "core files (ulimit -c)"
    if soft == 0:
        return Finding(name, "none of ranks that crash", remedy="ulimit -c unlimited")
    text = "unlimited" if soft == resource.RLIM_INFINITY else f"up to {_size(soft)}"
    return Finding(name, f"{text}, for each rank that crashes")


def memory_here(meminfo: str, group: Path) -> Finding:
    """Read the text of /proc/meminfo and the files of the control group."""
    kib = {line.split(":")[0]: int(line.split()[1]) for line in meminfo.splitlines() if ":" in line}
    limit, used = _number_in(group / "memory.max"), _number_in(group / "memory.current")
    left = None if limit is None or used is None else max(0, limit - used)
    return memory(kib["MemTotal"] << 10, kib["MemAvailable"] << 10, left)


def cores_here(group: Path) -> Finding:
    quota = _text_in(group / "cpu.max").split()
    limited = len(quota) == 2 and quota[0].isdecimal()
    share = int(quota[0]) / int(quota[1]) if limited else None
    return cores(os.cpu_count() or 1, len(os.sched_getaffinity(0)), share)


def processes_here(group: Path) -> Finding:
    return processes(*resource.getrlimit(resource.RLIMIT_NPROC), _number_in(group / "pids.max"))


def _limit(name: str, soft: int, hard: int, per_rank: int, otherwise: int, *, flag: str) -> Finding:
    if soft == resource.RLIM_INFINITY:
        return Finding(name, "unlimited")
    ranks = max(0, soft - otherwise) // per_rank
    value = f"{soft}, for about {ranks} ranks"
    if ranks >= MANY_RANKS:
        return Finding(name, value)
    needed = MANY_RANKS * per_rank + otherwise
    allowed = hard == resource.RLIM_INFINITY or hard >= needed
    remedy = (
        f"ulimit {flag} {needed}" if allowed else f"have root raise the hard limit, now {hard}, to {needed}"
    )
    return Finding(name, value, f"{name} of {soft} is too low for {MANY_RANKS} ranks", remedy)


def _size(size: int) -> str:
    return f"{size / GIB:.1f} GiB" if size >= GIB else f"{size / MIB:.0f} MiB"


def _text_in(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except FileNotFoundError:  # another kind of control groups, or none
        return ""


def _number_in(path: Path) -> int | None:
    text = _text_in(path).strip()
    return int(text) if text.isdecimal() else None
