"""Run scripts of this folder by their `Run:` lines, and write what they print into ../findings.md.

    python docs/findings/run.py                       all scripts
    python docs/findings/run.py torch_gloo vllm_isend  those whose names begin so

A script's docstring has a title, lines `Class:`, `Requirement:` and `Source:` where they apply, a text, and the
line `Run:`, which is carried out with this interpreter's torchrun. Sections of scripts that are not run stay
as they are, those of scripts that are gone go. Scripts of NCCL are left out where there are not two GPUs.
Lines without a rank at their beginning, such as warnings, are left out. A script that prints nothing, or
hangs, ends this program with exit code 1; its section stays.
"""

from __future__ import annotations

import ast
import os
import platform
import re
import shlex
import subprocess
import sys
import tempfile
import textwrap
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import torch

FOLDER = Path(__file__).parent
PAGE = FOLDER.parent / "findings.md"
LIMIT = 400.0
GPUS = 2  # for scripts of NCCL
LINE_OF_RANK = re.compile(r"(?:global )?rank (\d+)\b")
SECTION = re.compile(r"^## .*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
NAME_IN_SECTION = re.compile(r"\(findings/(\w+)\.py\)")


@dataclass(frozen=True)
class Finding:
    """What a script says of itself. `fields` are the lines `Name: value` of its docstring."""

    name: str
    title: str
    text: str
    fields: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, script: Path) -> Finding:
        title, _, rest = (ast.get_docstring(ast.parse(script.read_text())) or "").partition("\n")
        fields = dict(re.findall(r"^([A-Z]\w+): (.+)$", rest, re.MULTILINE))
        text = re.sub(r"^[A-Z]\w+: .+$", "", rest, flags=re.MULTILINE).strip()
        return cls(script.stem, title.rstrip("."), text, fields)

    def section(self, lines: list[str]) -> str:
        kind = self.fields.get("Class", "not classified").capitalize()
        against = f", against {self.fields['Requirement']}" if "Requirement" in self.fields else ""
        where = f"In {self.fields['Source']}." if "Source" in self.fields else ""
        prose = " ".join(part for part in (" ".join(self.text.split()), where) if part)
        paragraphs = [
            f"## {self.title}",
            f"{kind}{against}: [{self.name}.py](findings/{self.name}.py), with {self.versions()}",
            *([textwrap.fill(prose, 118, break_long_words=False, break_on_hyphens=False)] if prose else []),
            "\n".join(["```text", *lines, "```"]),
        ]
        return "\n\n".join(paragraphs)

    def versions(self) -> str:
        packages = ["torch", "vllm"] if self.name.startswith("vllm") else ["torch"]
        of_packages = [f"{package} {metadata.version(package)}" for package in packages]
        return ", ".join([*of_packages, *self.devices(), f"Python {platform.python_version()}"])

    @property
    def on_gpus(self) -> bool:
        return "_nccl_" in self.name

    def devices(self) -> list[str]:
        if not self.on_gpus:
            return []
        version = ".".join(map(str, torch.cuda.nccl.version()))
        return [f"NCCL {version}", f"{torch.cuda.device_count()} {torch.cuda.get_device_name()}"]


def run(finding: Finding) -> list[str]:
    """Return the lines of the ranks, in the order of the ranks. Raises RuntimeError where there are none."""
    words = shlex.split(finding.fields["Run"])
    assigned = dict(word.split("=", 1) for word in words if re.match(r"[A-Z_]+=", word))
    launcher, *arguments = words[len(assigned) :]
    if launcher != "torchrun":
        raise RuntimeError(f"{finding.name}: only torchrun is understood, got {launcher!r}")
    with tempfile.TemporaryDirectory() as folder:
        # A file for each rank, so that lines of two are not mixed. --standalone takes any free port.
        files = ["--standalone", "--log-dir", folder, "--redirects", "1"]
        try:
            ended = subprocess.run(
                [sys.executable, "-m", "torch.distributed.run", *files, *arguments],
                cwd=FOLDER,
                env={"VLLM_LOGGING_LEVEL": "ERROR", "OMP_NUM_THREADS": "1", **os.environ, **assigned},
                stderr=subprocess.PIPE,
                text=True,
                check=False,
                timeout=LIMIT,
            )
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"{finding.name} has not ended within {LIMIT:g} s") from None
        written = "".join(path.read_text() for path in sorted(Path(folder).glob("**/stdout.log")))
    numbered = [(match[1], line) for line in written.splitlines() if (match := LINE_OF_RANK.match(line))]
    if not numbered or ended.returncode:
        raise RuntimeError(f"{finding.name} ended with {ended.returncode}: {written}{ended.stderr[-1500:]}")
    return [line for _, line in sorted(numbered, key=lambda pair: int(pair[0]))]


def write(page: Path, sections: dict[str, str], order: list[str]) -> None:
    """Put the sections into the page, beside those that it has, and in that order."""
    text = page.read_text(encoding="utf-8")
    old = {found[1]: part for part in SECTION.findall(text) if (found := NAME_IN_SECTION.search(part))}
    present = {**old, **sections}
    head = text[: text.index("\n## ")] if "\n## " in text else text
    parts = [head.strip(), *(present[name].strip() for name in order if name in present)]
    page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def main(beginnings: list[str]) -> int:
    scripts = [path for path in FOLDER.glob("*.py") if path.stem != "run"]
    findings = [Finding.read(path) for path in scripts]
    findings.sort(
        key=lambda finding: (finding.name.split("_")[0], finding.fields.get("Class", ""), finding.name)
    )
    failed = 0
    order = [finding.name for finding in findings]
    for finding in findings:
        if not finding.name.startswith(tuple(beginnings) or ""):
            continue
        if finding.on_gpus and torch.cuda.device_count() < GPUS:
            print(f"{finding.name} needs {GPUS} GPUs: not run", flush=True)
            continue
        try:
            lines = run(finding)
        except RuntimeError as error:
            print(error, file=sys.stderr)
            failed = 1
            continue
        print(f"{finding.name}", *lines, sep="\n  ", flush=True)
        write(PAGE, {finding.name: finding.section(lines)}, order)
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
