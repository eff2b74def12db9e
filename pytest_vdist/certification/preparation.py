"""What a certification knows before its first test, written as session.json so that no crash loses it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from pytest_vdist.backends.registry import availability
from pytest_vdist.certificate import assembly
from pytest_vdist.certificate.manifest import Manifest, manifest_text
from pytest_vdist.certificate.requirements import registry
from pytest_vdist.certificate.verdict import COMPILE, SPLIT
from pytest_vdist.certification import surroundings
from pytest_vdist.certification.declared import DeclaredSpec
from pytest_vdist.certification.recorder import Expected
from pytest_vdist.implementations.protocol import Capabilities
from pytest_vdist.modes import _compile_modes
from pytest_vdist.options import TABLE, Options

if TYPE_CHECKING:
    from pytest_vdist.certification.observation import Observed

COMMUNICATOR = "communicator"
SIZES = tuple(int(size) for row in TABLE if row.name == "world_sizes" for size in row.default.split(","))
"""World sizes that a complete certification runs, as far as there are devices."""


@dataclass(frozen=True)
class Choice:
    """The profiles to judge, why others are not, and what makes some of them incomplete from the start."""

    profiles: tuple[str, ...]
    not_judged: Mapping[str, str]
    left_out: Mapping[str, list[str]]


def choose(options: Options) -> Choice:
    """Return the profiles that the options ask for."""
    known = registry().profiles
    obstacles = _obstacles(options)
    asked_for = options.profiles or tuple(name for name in known if name not in obstacles)
    not_judged = {name: obstacles.get(name, "not asked for") for name in known if name not in asked_for}
    left_out = {name: [obstacles[name]] for name in asked_for if name in obstacles}
    sizes = _sizes_left_out(options)
    if sizes:
        left_out[""] = [sizes]
    return Choice(tuple(name for name in known if name in asked_for), not_judged, left_out)


def _obstacles(options: Options) -> dict[str, str]:
    """Return why a profile cannot be complete in the modes that are selected."""
    obstacles = {}
    if True not in options.split_group:
        obstacles[SPLIT] = "subgroups by split_group are not selected: pass --vdist-split-group=both"
    selected = _compile_modes(options)
    declared = capabilities_of(options).compile_modes
    lacking = [mode for mode in declared if mode != "eager" and mode not in selected]
    if lacking or not set(selected) - {"eager"}:
        what = f"{', '.join(lacking)} not selected" if lacking else "none is declared"
        obstacles[COMPILE] = f"compile modes: {what}: pass --vdist-compile=all"
    if options.interface is None and not hasattr(options.implementation.load(), "communicators"):
        obstacles[COMMUNICATOR] = (
            "no class of a communicator is known: pass --vdist-interface=HOST=pkg.mod:Class"
        )
    return obstacles


def _sizes_left_out(options: Options) -> str:
    lacking = [size for size in SIZES if size not in options.world_sizes]
    if not lacking:
        return ""
    return f"world sizes {', '.join(map(str, lacking))} were left out by {options.origin('world_sizes')}"


def capabilities_of(options: Options) -> Capabilities:
    """Return what is claimed for the device of the certification."""
    return options.implementation.capabilities(options.backends[0].device_type)


def manifest_of(options: Options) -> Manifest | None:
    """Return the manifest of the session, None without one."""
    spec = options.implementation
    return spec.manifest if isinstance(spec, DeclaredSpec) else None


def manifest_as_used(options: Options) -> str:
    """Return the text of the manifest, or of one that says what the implementation itself claims."""
    if isinstance(options.implementation, DeclaredSpec):
        return options.implementation.manifest_text
    return manifest_text(
        options.backends[0].name,
        dataclasses.asdict(capabilities_of(options)),
        order="any",
        repeatable=False,
        about=f"The claims of the implementation {options.implementation.name}; no manifest was given.",
    )


def session_of(
    config: pytest.Config,
    options: Options,
    choice: Choice,
    expected: Sequence[Expected],
    shown: tuple[Observed, Sequence[str]],
) -> dict[str, Any]:
    """Return what session.json holds; `shown` is what ranks showed, and the claims that this refutes."""
    observed, contradicted = shown
    device = options.backends[0]
    claims = capabilities_of(options)
    manifest = manifest_of(options)
    numerics = {
        "order": manifest.order if manifest else "any",
        "repeatable": manifest.repeatable if manifest else False,
    }
    accumulate = {name: claims.accumulate.get(name, "native") for name in observed.float_dtypes}
    return {
        "suite": surroundings.suite(),
        "started": assembly.now(),
        "implementation": {
            "name": options.implementation.load().name,
            "backend": device.name,
            "device_names": observed.device_names,
            "proof": observed.proof,
        },
        "environment": surroundings.environment(device),
        "settings": surroundings.settings(config, options),
        "seeds": {"programs": options.seed, "effort": options.effort},
        "capabilities": {
            "declared": _plain({**dataclasses.asdict(claims), "accumulate": accumulate, **numerics}),
            "observed": {**observed.numerics, "device_count": availability(device).device_count},
            "contradictions": list(contradicted),
        },
        "controls": [],
        "profiles": list(choice.profiles),
        "profiles_not_judged": dict(choice.not_judged),
        "left_out": dict(choice.left_out),
        "void": list(observed.doubts),
        "expected": {
            each.test: {"requirements": list(each.requirements), "mode": dict(each.mode)} for each in expected
        },
    }


def _plain(value: Any) -> Any:
    """Return a value with lists in place of tuples, as JSON has it."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value
