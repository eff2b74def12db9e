"""What the judge needs of torch beyond its public interface, with the versions it was checked with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class OperatorArgument:
    """One argument of an operator's schema."""

    name: str
    is_tensor: bool
    is_written: bool
    has_default: bool


def operator(name: str) -> Any:
    """Return the operator of that name ("namespace::name"). Raises LookupError where torch knows none."""
    namespace, separator, short = name.partition("::")
    packet = getattr(getattr(torch.ops, namespace), short, None) if separator else None
    overload = getattr(packet, "default", None)
    if overload is None:
        raise LookupError(
            f"torch knows no operator {name!r} with a default overload: name it as 'namespace::name', and "
            "have it registered when the implementation is loaded"
        )
    return overload


def operator_arguments(overload: Any) -> list[OperatorArgument]:
    """Return the arguments of an operator's schema (`OpOverload._schema`, torch 2.11 to 2.15)."""
    return [
        OperatorArgument(
            argument.name,
            str(argument.type) == "Tensor",
            bool(argument.alias_info and argument.alias_info.is_write),
            argument.has_default_value(),
        )
        for argument in overload._schema.arguments
    ]
