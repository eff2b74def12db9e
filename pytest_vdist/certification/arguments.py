"""The arguments of `vdist spec`, `vdist probe` and `vdist report`, apart from what they need."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pytest_vdist.options import parsers

_T = TypeVar("_T")


def declare(commands: Any) -> None:
    """Declare the commands among those of a parser; each says by `run` what to call."""
    spec = commands.add_parser("spec", help="write the pages of the specification")
    spec.add_argument("folder", type=Path, metavar="FOLDER", help="where to, such as docs/spec")
    spec.set_defaults(run=_spec)
    probe = commands.add_parser(
        "probe", help="observe a device on real ranks and write the first capability manifest"
    )
    probe.add_argument("--backend", default="cpu", metavar="NAME", help="device (default: cpu)")
    probe.add_argument("--impl", default="reference", metavar="IMPL", help="as --vdist-impl")
    probe.add_argument("--timeout", type=_timeout, default=60.0, help="deadline in seconds of a run on ranks")
    probe.add_argument(
        "--ranks-per-device",
        type=_ranks_per_device,
        default=1,
        metavar="N",
        help="as --vdist-ranks-per-device (default: 1); sums are observed on three ranks",
    )
    probe.add_argument("-o", "--output", type=Path, metavar="FILE", help="where to (default: print it)")
    probe.set_defaults(run=_probe)
    report = commands.add_parser(
        "report", help="make the report of a certification that did not end from what its folder holds"
    )
    report.add_argument("folder", type=Path, metavar="FOLDER", help="what --vdist-certify was given")
    report.set_defaults(run=_report)


def _timeout(text: str) -> float:
    return _value_of(parsers.timeout, text)


def _ranks_per_device(text: str) -> int:
    return _value_of(parsers.ranks_per_device, text)


def _value_of(parse: Callable[[str], _T], text: str) -> _T:
    try:
        return parse(text)
    except parsers.BadValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _spec(parsed: argparse.Namespace) -> int:
    from pytest_vdist.certification import specification  # noqa: PLC0415 - it needs torch

    for path in specification.write(parsed.folder):
        print(path)  # noqa: T201 - what the command is for
    return 0


def _probe(parsed: argparse.Namespace) -> int:
    from pytest_vdist.certification.probe_command import main  # noqa: PLC0415 - it needs torch

    return main(parsed)


def _report(parsed: argparse.Namespace) -> int:
    from pytest_vdist.certificate.recovery import main  # noqa: PLC0415 - the other commands need none of it

    return main(parsed.folder)
