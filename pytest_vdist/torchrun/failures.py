"""How a failed run of torchrun reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pytest_vdist.ranks.failures import exit_text
from pytest_vdist.ranks.ledger import named
from pytest_vdist.torchrun.notes import RankEnd, RankOutput

_LAST_LINES = 20


class TorchrunError(Exception):
    """Raised when torchrun, or a rank that it started, failed or did not finish in time.

    `outputs` is what each rank had written, by rank; the text names the rank that failed first.
    """

    __module__ = "pytest_vdist"

    def __init__(self, headline: str, outputs: Sequence[RankOutput], sections: Sequence[str] = ()) -> None:
        super().__init__("\n\n".join([headline, *sections]))
        self.headline = headline
        self.outputs = list(outputs)


def hung(
    timeout: float, outputs: Sequence[RankOutput], stacks: Mapping[int, str], agent: str
) -> TorchrunError:
    """Return the error of a run that did not end in time; `stacks` are those of the ranks that run."""
    if not stacks:
        headline = f"torchrun has not finished, though no rank runs: its ranks had {timeout:g} s"
        return TorchrunError(headline, outputs, [_section("last output of torchrun", agent)])
    ranks = sorted(stacks)
    verb = "has" if len(ranks) == 1 else "have"
    headline = f"{named(ranks)} of {len(outputs)} {verb} not finished within the timeout of {timeout:g} s"
    sections = [text for rank in ranks for text in _of_rank(outputs[rank])]
    sections += [_section(f"stack of rank {rank}", stacks[rank] or "it did not answer") for rank in ranks]
    return TorchrunError(headline, outputs, sections)


def failed(
    exit_code: int, ends: Sequence[RankEnd], outputs: Sequence[RankOutput], agent: str
) -> TorchrunError:
    """Return the error of a run in which torchrun ended with `exit_code`."""
    if not ends:
        headline = f"torchrun failed without naming a rank: {exit_text(exit_code)}"
        sections = [text for output in outputs for text in _of_rank(output)]
        return TorchrunError(headline, outputs, [_section("last output of torchrun", agent), *sections])
    first, *others = ends
    headline = f"rank {first.rank} of {len(outputs)} failed: {_end_text(first)}"
    if others:
        headline += "; then " + ", ".join(f"rank {end.rank} ({exit_text(end.exit_code)})" for end in others)
    return TorchrunError(headline, outputs, [text for end in ends for text in _of_rank(outputs[end.rank])])


def _end_text(end: RankEnd) -> str:
    error = end.error.strip().splitlines()
    return f"{exit_text(end.exit_code)}: {error[0]}" if error else exit_text(end.exit_code)


def _of_rank(output: RankOutput) -> list[str]:
    streams = (("output", output.stdout), ("error output", output.stderr))
    return [_section(f"last {name} of rank {output.rank}", text) for name, text in streams if text.strip()]


def _section(title: str, text: str) -> str:
    lines = text.rstrip().splitlines()[-_LAST_LINES:]
    return "\n".join([f"{title}:", *(f"  {line}" if line else line for line in lines)])
