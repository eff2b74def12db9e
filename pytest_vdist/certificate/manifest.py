"""Capability manifests: what a vendor claims for its device, as a TOML file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pytest_vdist.certificate import tables
from pytest_vdist.certificate.tables import TEXT, Field, FileError, Place, one_of, some_of

SCHEMA = "vdist-manifest/1"
COMPILE_MODES = ("eager", "aot_eager", "inductor", "cudagraph")
ACCUMULATORS = ("native", "fp32", "exact")
ORDERS = ("any", "fixed", "ascending")
DIFFERENCES = ("shape", "dtype", "operation", "root")
OPERATIONS = (
    "all_reduce",
    "all_gather",
    "all_gatherv",
    "reduce_scatter",
    "reduce_scatterv",
    "gather",
    "broadcast",
    "broadcast_object",
    "broadcast_object_list",
    "send_object",
    "isend_object",
    "broadcast_tensor_dict",
    "send_tensor_dict",
    "isend_tensor_dict",
    "send",
    "barrier",
)
PROCESS_GROUPS = (
    "process_groups",
    "process_group_layouts",
    "process_group_message_handles",
    "process_group_completion",
    "process_group_remainders",
    "process_group_contradictions",
    "process_group_futures",
    "process_group_fractions",
)
FEATURES = (*OPERATIONS, "split_group", *PROCESS_GROUPS)
DTYPES = (
    *("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"),
    *("uint16", "uint32", "uint64", "complex32", "complex64", "complex128"),
    *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"),
)
_DEVICE = {
    "name": Field(tables.is_text, "the name of the backend", required=True),
    "vendor": TEXT,
    "product": TEXT,
}
_CLAIMS = {
    "compile_modes": some_of(*COMPILE_MODES),
    "reduction_dtypes": some_of(*DTYPES),
    "movement_dtypes": some_of(*DTYPES),
    "device_failures": one_of("error", "abort"),
    "in_place": some_of("all_reduce"),
}
_NUMERICS = {
    "order": one_of(*ORDERS),
    "repeatable": Field(lambda value: isinstance(value, bool), "true or false"),
}
_TABLES: Mapping[str, Mapping[str, Field]] = {
    "device": _DEVICE,
    "claims": _CLAIMS,
    "unsupported": dict.fromkeys(FEATURES, Field(tables.is_text, "a text: the reason")),
    "accumulate": dict.fromkeys(DTYPES, one_of(*ACCUMULATORS)),
    "operators": dict.fromkeys(
        OPERATIONS, Field(tables.is_text, 'the name of an operator, "mylib::all_reduce"')
    ),
    "unchecked_calls": dict.fromkeys(DIFFERENCES, Field(tables.is_text, "a text: the reason")),
    "numerics": _NUMERICS,
}
_PLACE_OF_MAPS = ("unsupported", "accumulate", "operators", "unchecked_calls")


@dataclass(frozen=True)
class Manifest:
    """What is claimed. `claims` and `maps` hold fields of Capabilities, only those that the file has.

    `order` is how sums are added: "any" (no claim), "fixed" (every element of every message in the same
    order of ranks), "ascending" (that order being 0, 1, 2, …). `repeatable` claims that the same call gives
    the same bits every time.
    """

    device: str
    claims: Mapping[str, Any]
    maps: Mapping[str, Mapping[str, str]]
    order: str = "any"
    repeatable: bool = False

    def overlay(self, own: Mapping[str, Any]) -> dict[str, Any]:
        """Return fields of Capabilities: those of the implementation, replaced where the manifest speaks."""
        listed = {
            key: tuple(value) if isinstance(value, list) else value for key, value in self.claims.items()
        }
        return {**own, **listed, **{key: dict(value) for key, value in self.maps.items()}}


def parse_manifest(text: str, *, source: str) -> Manifest:
    """Return the manifest written in `text`. `source` names the file in errors.

    Raises FileError with file, key, value and what is allowed.
    """
    top = Place(source)
    found = tables.parse(text, SCHEMA, top)
    tables.refuse_unknown(found, _TABLES, top)
    checked = {
        name: tables.check(found[name], fields, top.within(f"[{name}]"))
        for name, fields in _TABLES.items()
        if name in found
    }
    if "device" not in checked:
        raise FileError(f"{top}[device] is missing; it must have name, the name of the backend")
    numerics = checked.get("numerics", {})
    return Manifest(
        checked["device"]["name"],
        checked.get("claims", {}),
        {name: checked[name] for name in _PLACE_OF_MAPS if name in checked},
        numerics.get("order", "any"),
        numerics.get("repeatable", False),
    )


def manifest_text(
    device: str, capabilities: Mapping[str, Any], *, order: str, repeatable: bool, about: str
) -> str:
    """Return a manifest as text. `capabilities` are fields of Capabilities; None and empty ones are left out.

    `about` becomes a comment at the top.
    """
    lines = [*(f"# {line}" for line in about.splitlines()), f'schema = "{SCHEMA}"', ""]
    lines += ["[device]", f"name = {_toml(device)}", "", "[claims]"]
    lines += [f"{key} = {_toml(capabilities[key])}" for key in _CLAIMS if capabilities.get(key)]
    for name in _PLACE_OF_MAPS:
        entries = capabilities.get(name) or {}
        if entries:
            lines += ["", f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in entries.items())]
    lines += ["", "[numerics]", f"order = {_toml(order)}", f"repeatable = {_toml(repeatable)}"]
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
