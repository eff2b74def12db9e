"""`vdist probe`: the first capability manifest of a device, with what real ranks showed."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

from pytest_vdist.backends.base import BackendError
from pytest_vdist.backends.registry import availability, find_backend, require_devices, require_sharing
from pytest_vdist.backends.sharing import way_out
from pytest_vdist.certificate.manifest import manifest_text
from pytest_vdist.certificate.output import OutputError, write_text
from pytest_vdist.certification.observation import RANKS_OF_PROBES, Observed, Subject, observe
from pytest_vdist.implementations.spec import ImplementationError, ImplementationSpec
from pytest_vdist.ranks.failures import DistributedRunError

_OK, _FAILED, _USAGE_ERROR = 0, 1, 4


def main(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code: 4 for wrong arguments, 1 where the ranks do not work."""
    try:
        device = find_backend(arguments.backend, origin="--backend")
        require_devices(device, origin="--backend")
        require_sharing(device, arguments.ranks_per_device, origin="--ranks-per-device")
        implementation = ImplementationSpec.resolve(arguments.impl, "--impl")
        subject = Subject(device, implementation, arguments.timeout, arguments.ranks_per_device)
        text = probe(subject)
        if arguments.output is not None:
            _write(arguments.output, text)
    except (BackendError, ImplementationError, OutputError) as error:
        print(f"vdist probe: {error}", file=sys.stderr)  # noqa: T201 - what the command is for
        return _USAGE_ERROR
    except DistributedRunError as error:
        print(f"vdist probe: the ranks on {arguments.backend} do not work: {error}", file=sys.stderr)  # noqa: T201
        return _FAILED
    print(text if arguments.output is None else f"wrote {arguments.output}")  # noqa: T201
    return _OK


def probe(subject: Subject) -> str:
    """Return a manifest: what the implementation says of itself, and how wide its sums were seen to be made.

    What one run shows of orders and repetition is told in a comment, and not claimed.
    """
    observed, claims = observe(subject), subject.capabilities
    seen = observed.numerics.get("accumulate", {})
    wide = {name: word for name, word in seen.items() if word == "fp32"}
    fields = {
        **dataclasses.asdict(claims),
        "reduction_dtypes": claims.reduction_dtypes or subject.device.reduction_dtypes,
        "movement_dtypes": claims.movement_dtypes or subject.device.movement_dtypes,
        "accumulate": {**claims.accumulate, **wide},
    }
    return manifest_text(
        subject.device.name,
        fields,
        order="any",
        repeatable=False,
        about=_about(observed, subject),
    )


def _about(observed: Observed, subject: Subject) -> str:
    proof = observed.proof
    devices = ", ".join(observed.device_names)
    shared = f", {proof['ranks_per_device']} on a device," if "ranks_per_device" in proof else ""
    lines = [
        f"Capability manifest of {subject.device.name}, implementation {subject.implementation.name}.",
        f"Written by `vdist probe`: {proof['ranks']} ranks{shared} on {devices} showed it.",
        f"Process groups: {proof['process_group']} for the device, {proof['cpu_process_group']} for the CPU.",
    ]
    if observed.numerics:
        numerics = observed.numerics
        bits = ", ".join(f"{name} {count} bits" for name, count in observed.precisions.items())
        lines += [
            f"Sums are made with: {bits}.",
            f"Orders of additions seen: {', '.join(numerics['orders_seen'])}.",
            f"The same call gave the same bits twice: {'yes' if numerics['repeatable'] else 'no'}.",
            "What one run shows is no promise: claim an order or repeatable results only if you mean it.",
        ]
    else:
        option = way_out(subject.device, RANKS_OF_PROBES, availability(subject.device).device_count)
        shared = f", or {option.replace('--vdist-', '--')}" if option else ""
        lines.append(f"Numerics were not observed: that needs {RANKS_OF_PROBES} devices{shared}.")
    return "\n".join(lines)


def _write(path: Path, text: str) -> None:
    if path.exists():
        raise OutputError(f"{path} is there already; name another file, or remove it")
    write_text(path, text)
