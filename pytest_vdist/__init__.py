"""pytest plugin and conformance suite for PyTorch device communicators.

The names below are public. They are imported when first used: an unused plugin must import no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_vdist.backends.base import Availability, DeviceBackend
    from pytest_vdist.fixtures import CoordinatorRun, DistributedRun, OutcomesRun, OutcomesSideBySide
    from pytest_vdist.implementations.protocol import Capabilities, Coordinator, Implementation, InitSettings
    from pytest_vdist.implementations.spec import ImplementationSpec
    from pytest_vdist.interface.inspection import Inspection
    from pytest_vdist.nodes import Topology
    from pytest_vdist.program_run import ProgramFailedError, ProgramRun, ProgramSearch
    from pytest_vdist.ranks.compilation import CompiledFunction, compiled
    from pytest_vdist.ranks.context import (
        RankContext,
        current_rank,
        init_settings,
        process_group_backend,
        process_group_timeout,
    )
    from pytest_vdist.ranks.failures import (
        DistributedRunError,
        RankDiedError,
        RanksFailedError,
        RanksHungError,
        RanksUnavailableError,
    )
    from pytest_vdist.ranks.outcomes import RankOutcome
    from pytest_vdist.ranks.wire import CannotTravelError
    from pytest_vdist.ranks.world import coordinator, own_coordinator, unwatched
    from pytest_vdist.torchrun.failures import TorchrunError
    from pytest_vdist.torchrun.notes import RankOutput
    from pytest_vdist.torchrun.run import TorchrunRun

_HOMES = {
    "Availability": "backends.base",
    "CannotTravelError": "ranks.wire",
    "Capabilities": "implementations.protocol",
    "CompiledFunction": "ranks.compilation",
    "Coordinator": "implementations.protocol",
    "CoordinatorRun": "fixtures",
    "DeviceBackend": "backends.base",
    "DistributedRun": "fixtures",
    "DistributedRunError": "ranks.failures",
    "Implementation": "implementations.protocol",
    "ImplementationSpec": "implementations.spec",
    "Inspection": "interface.inspection",
    "InitSettings": "implementations.protocol",
    "OutcomesRun": "fixtures",
    "OutcomesSideBySide": "fixtures",
    "ProgramFailedError": "program_run",
    "ProgramRun": "program_run",
    "ProgramSearch": "program_run",
    "RankContext": "ranks.context",
    "RankDiedError": "ranks.failures",
    "RankOutcome": "ranks.outcomes",
    "RankOutput": "torchrun.notes",
    "RanksFailedError": "ranks.failures",
    "RanksHungError": "ranks.failures",
    "RanksUnavailableError": "ranks.failures",
    "Topology": "nodes",
    "TorchrunError": "torchrun.failures",
    "TorchrunRun": "torchrun.run",
    "compiled": "ranks.compilation",
    "coordinator": "ranks.world",
    "own_coordinator": "ranks.world",
    "current_rank": "ranks.context",
    "init_settings": "ranks.context",
    "process_group_backend": "ranks.context",
    "process_group_timeout": "ranks.context",
    "unwatched": "ranks.world",
}

__all__ = [
    "Availability",
    "CannotTravelError",
    "Capabilities",
    "CompiledFunction",
    "Coordinator",
    "CoordinatorRun",
    "DeviceBackend",
    "DistributedRun",
    "DistributedRunError",
    "Implementation",
    "ImplementationSpec",
    "InitSettings",
    "Inspection",
    "OutcomesRun",
    "OutcomesSideBySide",
    "ProgramFailedError",
    "ProgramRun",
    "ProgramSearch",
    "RankContext",
    "RankDiedError",
    "RankOutcome",
    "RankOutput",
    "RanksFailedError",
    "RanksHungError",
    "RanksUnavailableError",
    "Topology",
    "TorchrunError",
    "TorchrunRun",
    "compiled",
    "coordinator",
    "current_rank",
    "init_settings",
    "own_coordinator",
    "process_group_backend",
    "process_group_timeout",
    "unwatched",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
