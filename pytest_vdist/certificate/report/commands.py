"""`vdist verify`, `sign`, `diff`, `merge` and `matrix`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

_USAGE_ERROR = 4


def declare(commands: Any) -> None:
    """Declare the commands among those of a parser; each says by `run` what to call."""
    verify = commands.add_parser(
        "verify", help="check the folder of a certificate, offline; exit code 1 if it is wrong, 10 incomplete"
    )
    verify.add_argument("folder", type=Path, metavar="DIR")
    verify.add_argument("--key", type=Path, metavar="FILE", help="public key (PEM) that must have signed it")
    verify.set_defaults(run=_guarded(_verify))
    sign = commands.add_parser("sign", help="sign the folder of a certificate by the vendor's key")
    sign.add_argument("folder", type=Path, metavar="DIR")
    sign.add_argument("--key", type=Path, metavar="FILE", required=True, help="private Ed25519 key (PEM)")
    sign.set_defaults(run=_guarded(_sign))
    diff = commands.add_parser(
        "diff", help="what changed from one report to the next; exit code 14 on a regression"
    )
    diff.add_argument("old", type=Path, metavar="OLD", help="a folder or a report.json")
    diff.add_argument("new", type=Path, metavar="NEW", help="a folder or a report.json")
    diff.add_argument("--json", action="store_true", help="print JSON")
    diff.set_defaults(run=_guarded(_diff))
    merge = commands.add_parser("merge", help="make one certificate out of those of several jobs")
    merge.add_argument("out", type=Path, metavar="OUT", help="folder to write, empty or new")
    merge.add_argument("folders", type=Path, nargs="+", metavar="DIR")
    merge.set_defaults(run=_guarded(_merge))
    matrix = commands.add_parser(
        "matrix", help="print the jobs of a pipeline as JSON, as GitHub Actions read it"
    )
    matrix.add_argument("--backend", default="cpu", metavar="NAME[,NAME]")
    matrix.add_argument("--split-group", default="off", metavar="off|on|both")
    matrix.add_argument("--compile", default="eager", metavar="MODE[,MODE]|all")
    matrix.add_argument(
        "--profile", metavar="NAME[,NAME]", help="a job for each profile, instead of each mode"
    )
    matrix.add_argument("--shards", type=int, default=1, metavar="N", help="N jobs in place of each")
    matrix.set_defaults(run=_guarded(_matrix))


def _guarded(run: Any) -> Any:
    """Return the command with what users do wrong as one line at the standard error and exit code 4."""

    def guarded(parsed: argparse.Namespace) -> int:
        from pytest_vdist.certificate.output import OutputError  # noqa: PLC0415 - few commands need it
        from pytest_vdist.certificate.report.folder import ReportError  # noqa: PLC0415
        from pytest_vdist.certificate.tables import FileError  # noqa: PLC0415

        try:
            return int(run(parsed))
        except (ReportError, OutputError, FileError) as error:
            print(f"vdist {parsed.command}: {error}", file=sys.stderr)  # noqa: T201 - what it is for
            return _USAGE_ERROR

    return guarded


def _verify(parsed: argparse.Namespace) -> int:
    from pytest_vdist.certificate.report.verification import FAILED, OK, verify  # noqa: PLC0415 - jsonschema

    code, findings = verify(parsed.folder, parsed.key)
    word = {OK: "verified", FAILED: "FAILED"}.get(code, "INCOMPLETE")
    print("\n".join([*findings, f"{parsed.folder}: {word}"]))  # noqa: T201
    return code


def _sign(parsed: argparse.Namespace) -> int:
    from pytest_vdist.certificate.report.signing import sign  # noqa: PLC0415 - needs an extra

    print(sign(parsed.folder, parsed.key))  # noqa: T201
    return 0


def _diff(parsed: argparse.Namespace) -> int:
    from pytest_vdist.certificate.report.comparison import REGRESSION, compare  # noqa: PLC0415
    from pytest_vdist.certificate.report.folder import ReportError, read_report  # noqa: PLC0415
    from pytest_vdist.certificate.report.schema import schema_problems  # noqa: PLC0415

    reports = [read_report(parsed.old), read_report(parsed.new)]
    for place, report in zip((parsed.old, parsed.new), reports, strict=True):
        problems = schema_problems(report)
        if problems:
            raise ReportError(f"{place} is no report: {problems[0]}")
    found = compare(*reports)
    print(json.dumps(found.to_json(), indent=1) if parsed.json else found.text())  # noqa: T201
    return REGRESSION if found.is_regression else 0


def _merge(parsed: argparse.Namespace) -> int:
    from pytest_vdist.certificate.report.merging import merge  # noqa: PLC0415 - jsonschema, jinja2

    report = merge(parsed.out, parsed.folders)
    for name, entry in report["profiles"].items():
        print(f"{name}: {entry['verdict'].replace('_', ' ')}")  # noqa: T201
    print(parsed.out / "report.html")  # noqa: T201
    return 0


def _matrix(parsed: argparse.Namespace) -> int:
    from pytest_vdist.certificate.report.jobs import jobs  # noqa: PLC0415

    include = jobs(parsed.backend, parsed.split_group, parsed.compile, parsed.profile, parsed.shards)
    print(json.dumps({"include": include}))  # noqa: T201
    return 0
