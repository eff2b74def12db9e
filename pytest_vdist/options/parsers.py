"""How the texts of options are read: each parser returns a value or raises BadValueError."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import TypeVar

from pytest_vdist.backends.sharing import MAX_RANKS_PER_DEVICE, MAX_RUNS_PER_DEVICE

_T = TypeVar("_T")

COMPILE_MODES = ("eager", "aot_eager", "inductor", "cudagraph")
ALL_COMPILE_MODES = ("all",)
MAX_WORLD_SIZE = 1024
LONGEST_TIMEOUT = 86_400
HOSTS = ("reference", "vllm")
LAUNCHERS = ("auto", "local", "torchrun")
MAX_REPEATS = 10_000
EFFORTS = {"smoke": 60, "default": 500, "certify": 10_000}
"""Random programs for each world size."""
LARGEST_SEED = 2**32 - 1
PERFORMANCE = ("quick", "full")
MAX_SHARDS = 256


@dataclass(frozen=True)
class Shard:
    """One of several parts of the tests; numbers begin at 1."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


class BadValueError(ValueError):
    """Raised by a parser of the table: what the value must be, and the part of it that is not."""

    def __init__(self, expected: str, offending: str) -> None:
        super().__init__(f"{expected}, got {offending!r}")


def names(text: str) -> tuple[str, ...]:
    return _distinct("backend names", tuple(part.strip() for part in text.split(",")), text)


def implementation(text: str) -> str:
    if not text.strip():
        raise BadValueError("implementation must not be empty", text)
    return text.strip()


def split_group(text: str) -> tuple[bool, ...]:
    values = {"off": (False,), "on": (True,), "both": (False, True)}
    if text not in values:
        raise BadValueError("subgroup creation must be off, on or both", text)
    return values[text]


def split_group_variable(text: str) -> tuple[bool, ...]:
    if text not in {"0", "1"}:
        raise BadValueError("subgroup creation must be 0 or 1 in the environment", text)
    return (text == "1",)


def compile_modes(text: str) -> tuple[str, ...]:
    if text.strip() == "all":
        return ALL_COMPILE_MODES
    modes = tuple(part.strip() for part in text.split(","))
    for mode in modes:
        if mode not in COMPILE_MODES:
            raise BadValueError(f"compile mode must be one of {', '.join(COMPILE_MODES)}, or all", mode)
    return _distinct("compile modes", modes, text)


def world_sizes(text: str) -> tuple[int, ...]:
    sizes = tuple(world_size(part.strip()) for part in text.split(","))
    return _distinct("world sizes", sizes, text)


def world_size(text: str) -> int:
    return _number(text, "world size", MAX_WORLD_SIZE)


def ranks_per_device(text: str) -> int:
    return _number(text, "ranks per device", MAX_RANKS_PER_DEVICE)


def runs_per_device(text: str) -> int:
    return _number(text, "runs per device", MAX_RUNS_PER_DEVICE)


def timeout(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= LONGEST_TIMEOUT:
        raise BadValueError(
            f"timeout must be a number of seconds greater than 0 and at most {LONGEST_TIMEOUT} (a day)", text
        )
    return seconds


def times(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= MAX_REPEATS):
        raise BadValueError(f"number of runs must be a whole number from 1 to {MAX_REPEATS}", text)
    return int(text)


def performance(text: str) -> str:
    if text not in PERFORMANCE:
        raise BadValueError(f"performance must be one of {', '.join(PERFORMANCE)}", text)
    return text


def shard(text: str) -> Shard:
    number, _, count = text.partition("/")
    if not all(part.isascii() and part.isdecimal() for part in (number, count)) or not (
        1 <= int(number) <= int(count) <= MAX_SHARDS
    ):
        raise BadValueError(
            f"shard must be I/N, with whole numbers I from 1 to N and N up to {MAX_SHARDS}", text
        )
    return Shard(int(number), int(count))


def switch(text: str) -> bool:
    values = {"off": False, "on": True}
    if text not in values:
        raise BadValueError("control mutants must be off or on", text)
    return values[text]


def effort(text: str) -> str:
    if text not in EFFORTS:
        raise BadValueError(f"effort must be one of {', '.join(EFFORTS)}", text)
    return text


def seed(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) <= LARGEST_SEED):
        raise BadValueError(f"seed must be a whole number from 0 to {LARGEST_SEED}", text)
    return int(text)


def replay(text: str) -> str:
    """Return the text of the program."""
    if text.lstrip().startswith("{"):
        return text
    if not os.path.isfile(text):
        raise BadValueError("program must be a file that is there, or text that begins with {", text)
    with open(text, encoding="utf-8") as file:
        return file.read()


def group_timeout(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= LONGEST_TIMEOUT:
        raise BadValueError(
            f"limit must be a number of seconds greater than 0 and at most {LONGEST_TIMEOUT} (a day)",
            text,
        )
    return seconds


def launcher(text: str) -> str:
    if text not in LAUNCHERS:
        raise BadValueError(f"launcher must be one of {', '.join(LAUNCHERS)}", text)
    return text


def interfaces(text: str) -> tuple[tuple[str, str], ...]:
    """Return hosts and classes; "" as the class leaves it to a host that is known."""
    pairs = tuple(_interface(part.strip(), text) for part in text.split(","))
    return _distinct("interfaces", pairs, text)


def _interface(part: str, text: str) -> tuple[str, str]:
    host, equals, cls = part.partition("=")
    if host not in HOSTS and not (equals and _is_class(host)):
        raise BadValueError(f"host must be one of {', '.join(HOSTS)}, or pkg.mod:Base=pkg.mod:Class", text)
    if equals and not _is_class(cls):
        raise BadValueError(f"class must look like {host}=pkg.mod:Class", text)
    return host, cls


def _is_class(text: str) -> bool:
    module, colon, name = text.partition(":")
    return bool(colon) and name.isidentifier() and all(part.isidentifier() for part in module.split("."))


def path(text: str) -> str:
    if not text.strip():
        raise BadValueError("path must not be empty", text)
    return text


def profiles(text: str) -> tuple[str, ...]:
    # The registry is read when profiles are named, not by a plugin that is installed but unused.
    from pytest_vdist.certificate.requirements import registry  # noqa: PLC0415

    names = tuple(part.strip() for part in text.split(","))
    known = registry().profiles
    for name in names:
        if name not in known:
            raise BadValueError(f"profile must be one of {', '.join(known)}", name)
    return _distinct("profiles", names, text)


def _number(text: str, what: str, most: int) -> int:
    # isdecimal() is True for other scripts' digits as well, which int() reads but no user means.
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= most):
        raise BadValueError(f"{what} must be a whole number from 1 to {most}", text)
    return int(text)


def _distinct(what: str, values: tuple[_T, ...], text: str) -> tuple[_T, ...]:
    if "" in values:
        raise BadValueError(f"{what} must not be empty", text)
    if len(set(values)) < len(values):
        raise BadValueError(f"{what} must not repeat", text)
    return values
