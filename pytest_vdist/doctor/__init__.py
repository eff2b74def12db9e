"""What the plugin sees on this machine, and what is wrong with it: the command `vdist doctor`."""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from pytest_vdist.doctor import machine, network, sessions, software
from pytest_vdist.doctor.findings import Check, Finding, perform

_GROUP = Path("/sys/fs/cgroup")
_NAME_WIDTH = 24
# Threads cannot end a wait in C that holds the GIL; this ends the process then, and prints its stacks.
_LAST_DEADLINE = 600.0
_STANDARD_ERROR = 2
_DRIVER_DEADLINE = 60.0
_RANKS_DEADLINE = 150.0
_DRIVER_REMEDY = "the device's driver does not answer: try the vendor's own tool, restart the driver"
_RANKS_REMEDY = "see whether all devices are leased, and whether a test of one all_reduce runs"


def examine(checks: Iterable[Check], show: Callable[[Finding], None]) -> list[Finding]:
    """Perform all checks, one after the other, and show what each finds as soon as it does."""
    findings = []
    for check in checks:
        finding = perform(check)
        show(finding)
        findings.append(finding)
    return findings


def main(*, as_json: bool) -> int:
    """Print what is found on this machine and return 0, or 1 if something is wrong."""
    faulthandler.dump_traceback_later(_LAST_DEADLINE, file=_STANDARD_ERROR, exit=True)
    try:
        findings = examine(checks_of_this_machine(), (lambda _: None) if as_json else _print_line)
    finally:
        faulthandler.cancel_dump_traceback_later()
    print(json_text(findings) if as_json else problems_text(findings))  # noqa: T201 - what the command is for
    return 1 if any(finding.problem for finding in findings) else 0


def _print_line(finding: Finding) -> None:
    print(line(finding), flush=True)  # noqa: T201 - what the command is for


def line(finding: Finding) -> str:
    """Return a finding as a line; where nothing is wrong, with how to get what is missing."""
    advice = f"; to change that, {finding.remedy}" if finding.remedy and not finding.problem else ""
    mark = " (!)" if finding.problem else ""
    return f"{finding.name:<{_NAME_WIDTH}} {finding.value}{advice}{mark}"


def problems_text(findings: Sequence[Finding]) -> str:
    """Return what is wrong, and what to do, in a paragraph for each problem."""
    wrong = [finding for finding in findings if finding.problem]
    if not wrong:
        return "\nno problems"
    count = "1 problem" if len(wrong) == 1 else f"{len(wrong)} problems"
    paragraphs = [f"{found.name}: {found.problem}\n  {found.remedy}" for found in wrong]
    return "\n".join(["", f"{count}:", *paragraphs])


def json_text(findings: Sequence[Finding]) -> str:
    """Return all findings as JSON: `ok`, and `findings` with name, value, problem and remedy."""
    ok = not any(finding.problem for finding in findings)
    return json.dumps({"ok": ok, "findings": [asdict(finding) for finding in findings]}, indent=2)


def checks_of_this_machine() -> Iterable[Check]:
    """Yield the checks; those of devices and ranks come last, because they depend on what is there."""
    yield Check("Python", lambda: machine.python(tuple(sys.version_info[:3]), sys.executable, sys.platform))
    yield Check("libraries", software.libraries)
    yield Check("torch", software.torch_build, deadline=120.0, remedy="is the file system slow?")
    yield Check(
        "process-group backends", lambda: software.process_group_backends(software.built_in_backends())
    )
    yield Check("groups", software.group_functions)
    yield Check("C++ compiler", lambda: software.compiler_here(os.environ))
    yield from _machine_checks()
    yield from _network_checks()
    yield Check(
        "leftover processes",
        lambda: sessions.leftovers(sessions.running_processes(), sessions.still_alive),
    )
    yield Check("leased devices", lambda: sessions.leases(Path("/proc/net/unix").read_text(), os.getuid()))
    for name in software.relevant_variables(os.environ):
        yield Check(name, partial(_variable, name))
    yield from _device_checks()


def _machine_checks() -> Iterable[Check]:
    yield Check("kernel features", lambda: machine.kernel_features(machine.missing_kernel_features()), 30.0)
    yield Check("memory", lambda: machine.memory_here(Path("/proc/meminfo").read_text(), _GROUP))
    yield Check("cores", lambda: machine.cores_here(_GROUP))
    yield Check("shared memory", lambda: machine.shared_memory_here(machine.SHARED_MEMORY))
    yield Check("open files", lambda: machine.open_files(*resource.getrlimit(resource.RLIMIT_NOFILE)))
    yield Check("processes", lambda: machine.processes_here(_GROUP))
    yield Check("core files", lambda: machine.core_files(resource.getrlimit(resource.RLIMIT_CORE)[0]))


def _network_checks() -> Iterable[Check]:
    yield Check("loopback", lambda: network.loopback(network.interface_names(), network.connect_to_self))
    for address in (network.LOOPBACK, f"::ffff:{network.LOOPBACK}"):
        find = partial(network.name_look_up, address)
        remedy = network.look_up_remedy(address)
        yield Check(f"name of {address}", find, network.LOOK_UP_DEADLINE, remedy)


def _device_checks() -> Iterable[Check]:
    usable: list[str] = []  # filled while the checks are performed, one after the other
    for name in software.known_backends():
        find = partial(software.device_backend, name, os.environ, usable)
        yield Check(f"device {name}", find, _DRIVER_DEADLINE, _DRIVER_REMEDY)
    for name in usable:
        yield Check(f"ranks on {name}", partial(_ranks, name), _RANKS_DEADLINE, _RANKS_REMEDY)


def _ranks(name: str) -> Finding:
    from pytest_vdist.doctor import trial  # noqa: PLC0415 - imports torch, which may not be there

    return trial.ranks(name, lambda: trial.try_ranks(name))


def _variable(name: str) -> Finding:
    return software.variable(
        name, os.environ[name], cores=len(os.sched_getaffinity(0)), interfaces=network.interface_names()
    )
