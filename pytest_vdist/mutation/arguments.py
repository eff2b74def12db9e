"""The arguments of `vdist mutants`, apart from what they need: other commands do not import torch."""

from __future__ import annotations

import argparse
import os
from pathlib import Path


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument(
        "names", nargs="*", metavar="MUTANT", help="mutants to run, * for any text; default: all"
    )
    parser.add_argument("--backend", default="cpu", metavar="NAME[,NAME]", help="devices (default: cpu)")
    parser.add_argument(
        "--requirement",
        action="append",
        default=[],
        metavar="VD-…",
        help="only mutants that it should notice",
    )
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="mutants at a time (default: cores)"
    )
    parser.add_argument(
        "--timeout", type=float, default=10.0, help="deadline in seconds of one run on ranks (default: 10)"
    )
    parser.add_argument("--list", action="store_true", help="only list the mutants")
    parser.add_argument(
        "--merge",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="run nothing: put results that --json has written together, each mutant once, CPU before others",
    )
    parser.add_argument(
        "--record",
        action="store_true",
        help="write what became of all mutants into the package, for the reports of certifications",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results as JSON")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the results as a page")
    parser.add_argument(
        "--markdown",
        type=Path,
        metavar="FILE",
        help="write the matrix for the documentation, between the marks of a page",
    )
