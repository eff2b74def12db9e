"""What real ranks show of a device before it is judged: proof that it runs, and how it makes sums."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import torch

from pytest_vdist.backends.base import DeviceBackend
from pytest_vdist.backends.registry import availability
from pytest_vdist.backends.sharing import ranks_on_one_device
from pytest_vdist.certification import in_rank
from pytest_vdist.implementations.protocol import Capabilities
from pytest_vdist.implementations.spec import ImplementationSpec
from pytest_vdist.judge import ACCUMULATORS, SumProbe, dtype_name, tree_text
from pytest_vdist.judge.formats import float_format_of
from pytest_vdist.options import GroupLimits
from pytest_vdist.ranks.messages import WorldSpec
from pytest_vdist.ranks.pool import RankPool
from pytest_vdist.ranks.world import call_with_coordinator

# As the suites do it: parts for each rank, of short and of long messages, for algorithms differ.
_BLOCKS = (2, 32)
RANKS_OF_PROBES = 3
_WORDS = {"fp64": 53, "fp32": 24}


@dataclass(frozen=True)
class Subject:
    """What is observed. `timeout` is the deadline of one run on the ranks, in seconds."""

    device: DeviceBackend
    implementation: ImplementationSpec
    timeout: float
    ranks_per_device: int = 1
    split_group: bool = False
    limits: GroupLimits = field(default_factory=lambda: GroupLimits(None, None))

    @property
    def capabilities(self) -> Capabilities:
        return self.implementation.capabilities(self.device.device_type)

    @property
    def float_dtypes(self) -> list[torch.dtype]:
        names = self.capabilities.reduction_dtypes or self.device.reduction_dtypes
        dtypes = [getattr(torch, name) for name in names]
        return [dtype for dtype in dtypes if dtype.is_floating_point]


@dataclass(frozen=True)
class Observed:
    """What ranks showed. `numerics` is empty where there are devices for fewer than three.

    `process_group_backend` is what the device backend declares, `float_dtypes` are those that are summed.
    """

    proof: dict[str, Any]
    device_names: list[str]
    numerics: dict[str, Any]
    precisions: Mapping[str, int]
    process_group_backend: str | None = None
    float_dtypes: tuple[str, ...] = ()

    @property
    def doubts(self) -> list[str]:
        """Reasons to doubt that the implementation ran at all."""
        size = self.proof["ranks"]
        reasons = []
        if not self.proof["operations"] and self.proof["process_group"] is not None:
            reasons.append(
                f"no counter of operations moved in {self.proof['process_group']}: nothing shows that the "
                f"process groups of the implementation did the work"
            )
        if self.proof["sum"] != [size * (size + 1) / 2] * 4:
            reasons.append(f"all_reduce on {size} ranks gave {self.proof['sum']}")
        if self._is_another_backend():
            reasons.append(
                f"the device backend declares process_group_backend={self.process_group_backend!r}, and the "
                f"process groups of the implementation are {self.proof['process_group']}"
            )
        return reasons

    def _is_another_backend(self) -> bool:
        """Tell whether a backend that torch knows by name works in place of the declared one.

        A vendor's own may call itself what it likes.
        """
        used = str(self.proof["process_group"]).rpartition(" ")[2].casefold()
        known = [name.casefold() for name in torch.distributed.Backend.backend_list]
        declared = (self.process_group_backend or used).casefold()
        return used in known and used not in [part.rpartition(":")[2] for part in declared.split(",")]


def observe(subject: Subject) -> Observed:
    """Run the proof and the probes on ranks. Raises DistributedRunError where they do not come to an end."""
    devices = availability(subject.device).device_count
    sharing = subject.device.shares_device
    places = devices * subject.ranks_per_device
    most = RANKS_OF_PROBES if sharing else min(places, RANKS_OF_PROBES)
    world = WorldSpec(
        subject.device.device_type,
        implementation=subject.implementation,
        split_group=subject.split_group,
        timeout=subject.limits.timeout,
        cpu_timeout=subject.limits.cpu_timeout,
    )
    with closing(
        RankPool(
            subject.device,
            devices,
            preload=subject.capabilities.preload,
            ranks_per_device=subject.ranks_per_device,
        )
    ) as pool:

        def on_ranks(function: Any, *args: Any) -> list[Any]:
            return pool.run(
                call_with_coordinator,
                (function, None, *args),
                {},
                world=world,
                world_size=most,
                timeout=subject.timeout,
            )

        by_rank = on_ranks(in_rank.proof)
        probes = _probes(subject, most)
        seen = on_ranks(in_rank.totals, probes) if probes else []
    names = [each.pop("device_name") for each in by_rank]
    numerics, precisions = _numerics(probes, seen) if probes else ({}, {})
    shared = 1 if sharing else ranks_on_one_device(most, devices)
    proof = {"ranks": most, **({"ranks_per_device": shared} if shared > 1 else {}), **by_rank[0]}
    declared = subject.device.process_group_backend
    floats = tuple(map(dtype_name, subject.float_dtypes))
    return Observed(proof, sorted(set(names)), numerics, precisions, declared, floats)


def _probes(subject: Subject, ranks: int) -> list[SumProbe]:
    if ranks < RANKS_OF_PROBES or not subject.capabilities.supports("all_reduce"):
        return []
    return [SumProbe(dtype, ranks, blocks * ranks) for dtype in subject.float_dtypes for blocks in _BLOCKS]


def _numerics(
    probes: Sequence[SumProbe], seen: Sequence[Sequence[tuple[torch.Tensor, bool]]]
) -> tuple[dict[str, Any], dict[str, int]]:
    """Return what the sums say, for the report, and the precision in bits by dtype."""
    precisions: dict[str, int] = {}
    trees: set[str] = set()
    for probe, (total, _) in zip(probes, seen[0], strict=True):
        name = dtype_name(probe.dtype)
        found = probe.accumulator(total)
        precisions[name] = min(precisions.get(name, found.precision), found.precision)
        trees |= {tree_text(tree) for tree in probe.trees(total)}
    ascending = _ascending(probes[0].world_size)
    order = "any" if len(trees) != 1 else "ascending" if trees == {ascending} else "fixed"
    return {
        "accumulate": {name: _word(name, bits) for name, bits in precisions.items()},
        "order": order,
        "orders_seen": sorted(trees),
        "repeatable": all(same for of_rank in seen for _, same in of_rank),
        "same_on_all_ranks": _alike(seen),
    }, precisions


def _alike(seen: Sequence[Sequence[tuple[torch.Tensor, bool]]]) -> bool:
    return all(
        torch.equal(of_rank[at][0].view(torch.uint8), seen[0][at][0].view(torch.uint8))
        for of_rank in seen
        for at in range(len(seen[0]))
    )


def _ascending(ranks: int) -> str:
    text = "0"
    for rank in range(1, ranks):
        text = f"({text}+{rank})"
    return text


def _word(name: str, bits: int) -> str:
    """Return the precision as manifests say it."""
    if bits <= float_format_of(getattr(torch, name)).precision:
        return "native"
    return next((word for word, precision in _WORDS.items() if bits >= precision), f"{bits} bits")


def contradictions(observed: Observed, capabilities: Capabilities, order: str, repeatable: bool) -> list[str]:
    """Return each claim that the probes refute, in words."""
    if not observed.numerics:
        return []
    found = []
    for name, bits in observed.precisions.items():
        claim = capabilities.accumulate.get(name, "native")
        dtype = getattr(torch, name)
        promised = math.inf if claim == "exact" else float_format_of(ACCUMULATORS[claim] or dtype).precision
        most = SumProbe(dtype, RANKS_OF_PROBES).most_precise
        if bits < min(promised, most):
            found.append(f"accumulate.{name}: claimed {claim!r}, sums are made with {bits} bits")
    seen = observed.numerics["order"]
    if (order == "ascending" and seen != "ascending") or (order == "fixed" and seen == "any"):
        trees = ", ".join(observed.numerics["orders_seen"])
        found.append(f"numerics.order: claimed {order!r}, sums are made as {trees}")
    if repeatable and not observed.numerics["repeatable"]:
        found.append("numerics.repeatable: claimed true, two calls with the same input gave different bits")
    return found
