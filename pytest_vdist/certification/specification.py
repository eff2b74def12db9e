"""The pages of the specification, made from the registry, the suites and the mutants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pytest_vdist.certificate.requirements import Registry, Requirement, registry
from pytest_vdist.certification.suite_source import tests_by_requirement
from pytest_vdist.mutation.traceability import WITHOUT_MUTANT
from pytest_vdist.reference_impl.mutants import MUTANTS

INDEX = "README.md"
_MADE = "<!-- Made by `vdist spec`. Change pytest_vdist/certificate/requirements.toml instead. -->"


def pages() -> dict[str, str]:
    """Return the text of every page by its file's name: an index, and one page for each chapter."""
    known, tests, mutants = registry(), tests_by_requirement(), _mutants_by_requirement()
    chapters: dict[str, list[Requirement]] = {}
    for requirement in known.requirements.values():
        chapters.setdefault(requirement.chapter, []).append(requirement)
    made = {
        f"{chapter}.md": _page(chapter, entries, known, tests, mutants)
        for chapter, entries in chapters.items()
    }
    return {INDEX: _index(known, chapters), **made}


def write(folder: Path) -> list[Path]:
    """Write the pages into a folder, take away those of chapters that are no more, and return the written."""
    folder.mkdir(parents=True, exist_ok=True)
    made = pages()
    for stale in folder.glob("*.md"):
        if stale.name not in made:
            stale.unlink()
    for name, text in made.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in made]


def differences(folder: Path) -> list[str]:
    """Return what the pages of a folder lack, have too much, or say differently."""
    made, found = pages(), {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.md")}
    return [
        *(f"{name} is missing" for name in made.keys() - found.keys()),
        *(f"{name} belongs to no chapter" for name in found.keys() - made.keys()),
        *(
            f"{name} is not as it would be made"
            for name in made.keys() & found.keys()
            if made[name] != found[name]
        ),
    ]


def _mutants_by_requirement() -> Mapping[str, list[str]]:
    found: dict[str, list[str]] = {}
    for mutant in MUTANTS.values():
        for id_ in mutant.kills:
            found.setdefault(id_, []).append(mutant.name)
    return found


def _index(known: Registry, chapters: Mapping[str, Sequence[Requirement]]) -> str:
    profiles = "\n".join(
        f"| `{name}` | {text} | {sum(name in entry.profiles for entry in known.requirements.values())} |"
        for name, text in known.profiles.items()
    )
    listed = "\n".join(
        f"| [{_title(chapter)}]({chapter}.md) | {', '.join(_areas(entries, known))} | {len(entries)} |"
        for chapter, entries in chapters.items()
    )
    return f"""{_MADE}

# Specification {known.spec_version}

{len(known.requirements)} requirements on coordinators and what they are made of. MUST, SHOULD and MAY are
those of [RFC 2119](https://www.rfc-editor.org/rfc/rfc2119); only a MUST decides a verdict. An id is never
used again. [Certification](../certification.md) says how a device is judged, how a test is challenged, and
when the version changes.

| chapter | about | requirements |
|---|---|---|
{listed}

## Profiles

A verdict is about a profile. A requirement may be in several.

| profile | what it is | requirements |
|---|---|---|
{profiles}
"""


def _areas(entries: Sequence[Requirement], known: Registry) -> list[str]:
    return list(dict.fromkeys(known.areas[entry.area] for entry in entries))


def _title(chapter: str) -> str:
    return chapter.replace("_", " ").capitalize()


def _page(
    chapter: str,
    entries: Sequence[Requirement],
    known: Registry,
    tests: Mapping[str, Sequence[str]],
    mutants: Mapping[str, Sequence[str]],
) -> str:
    lines = [
        _MADE,
        "",
        f"# {_title(chapter)}",
        "",
        f"Specification {known.spec_version}, [all chapters]({INDEX}).",
    ]
    area = ""
    for entry in entries:
        if entry.area != area:
            area = entry.area
            lines += ["", f"## {known.areas[area]}", "", known.rationales[area]]
        lines += ["", *_entry(entry, known, tests.get(entry.id, ()), mutants.get(entry.id, ()))]
    return "\n".join(lines) + "\n"


def _entry(entry: Requirement, known: Registry, tests: Sequence[str], mutants: Sequence[str]) -> list[str]:
    own = entry.rationale if entry.rationale != known.rationales[entry.area] else ""
    noticed = _joined(mutants) or WITHOUT_MUTANT.get(entry.id, "none")
    return [
        f"### {entry.id}",
        "",
        f"**{entry.level}** {entry.text}",
        *(["", f"*Why:* {own}"] if own else []),
        "",
        f"- Profiles: {', '.join(entry.profiles)}. Ranks: {entry.min_world_size} or more.",
        f"- Tests: {_joined(tests) or 'none'}",
        f"- Mutants that they must notice: {noticed}",
    ]


def _joined(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
