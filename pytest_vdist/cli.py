"""The `vdist` command."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import metadata

from pytest_vdist.certificate.report import commands as report_commands
from pytest_vdist.certification import arguments as certification_arguments
from pytest_vdist.mutation import arguments as mutants_arguments
from pytest_vdist.options import TABLE

_COLUMNS = ("flag", "environment", "ini key", "default")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with the given arguments, those of the process by default, and return its exit code."""
    parser = _parser()
    parsed = parser.parse_args(arguments)
    if parsed.command is None:
        parser.print_help()
    elif parsed.command == "doctor":
        from pytest_vdist import doctor  # noqa: PLC0415 - the other commands need none of it

        return doctor.main(as_json=parsed.json)
    elif parsed.command == "mutants":
        from pytest_vdist.mutation import command  # noqa: PLC0415 - it needs torch

        return command.main(parsed)
    elif hasattr(parsed, "run"):
        return int(parsed.run(parsed))
    else:
        print(options_table())  # noqa: T201 - what the command is for
    return 0


def options_table() -> str:
    """Return the options of the plugin as an aligned table: flag, environment variable, ini key, default."""
    rows = [_COLUMNS, *((row.flag, row.variable, row.ini, row.default) for row in TABLE)]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vdist", description="Conformance tests for device communicators.")
    parser.add_argument("--version", action="version", version=f"vdist {metadata.version('pytest-vdist')}")
    commands = parser.add_subparsers(dest="command", title="commands")
    commands.add_parser(
        "options", help="print every option: its flag, environment variable, ini key and default"
    )
    doctor = commands.add_parser(
        "doctor",
        help="print what the plugin sees on this machine and what is wrong; exit code 1 if anything is",
    )
    doctor.add_argument("--json", action="store_true", help="print JSON")
    mutants_arguments.declare(
        commands.add_parser(
            "mutants",
            help="run the suites against implementations wrong on purpose; exit code 15 if one passes",
        )
    )
    certification_arguments.declare(commands)
    report_commands.declare(commands)
    return parser
