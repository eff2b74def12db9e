"""Control mutants: the implementation under test with one thing wrong, which its own session must notice.

They show that the tests reach the implementation at all. They need of it no more than the protocol says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from pytest_vdist.certificate.controls import CONTROLS
from pytest_vdist.implementations.spec import ImplementationSpec

if TYPE_CHECKING:
    import torch

    from pytest_vdist.implementations.protocol import (
        Capabilities,
        Coordinator,
        Implementation,
        InitSettings,
    )


@dataclass(frozen=True)
class ControlSpec(ImplementationSpec):
    """How to make a control mutant of an implementation. Can be pickled, as every spec."""

    control: str

    @classmethod
    def of(cls, spec: ImplementationSpec, control: str) -> ControlSpec:
        """Return the spec of that mutant of `spec`. Raises ValueError for an unknown one."""
        if control not in CONTROLS:
            raise ValueError(f"there is no control mutant {control!r}; there are {', '.join(CONTROLS)}")
        return cls(spec.name, spec.target, spec.origin, control)

    def load(self) -> Implementation:
        return ControlImplementation(super().load(), self.control)


class ControlImplementation:
    """An implementation whose coordinators have one thing wrong."""

    def __init__(self, implementation: Implementation, control: str) -> None:
        self.name = f"{implementation.name}, but {control}"
        self._implementation = implementation
        self._control = control

    def capabilities(self, device_type: str) -> Capabilities:
        return self._implementation.capabilities(device_type)

    def init(self, settings: InitSettings) -> None:
        self._implementation.init(settings)

    def coordinator(self, group_ranks: list[list[int]], *, name: str, **options: Any) -> Coordinator:
        made = self._implementation.coordinator(group_ranks, name=name, **options)
        return cast("Coordinator", _WRONG[self._control](made))

    def destroy(self) -> None:
        self._implementation.destroy()


class _Wrapped:
    """A coordinator; what a subclass does not define is that of the one within."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator

    def __getattr__(self, name: str) -> Any:
        return getattr(self._coordinator, name)

    @property
    def _is_last(self) -> bool:
        size = self._coordinator.world_size
        return size > 1 and self._coordinator.rank_in_group == size - 1


class _LacksTheLastRank(_Wrapped):
    def all_reduce(self, input_: torch.Tensor) -> torch.Tensor:
        return self._coordinator.all_reduce(input_ * 0 if self._is_last else input_)


class _GathersAWrongBit(_Wrapped):
    def all_gather(self, input_: torch.Tensor, dim: int = -1) -> torch.Tensor:
        import torch  # noqa: PLC0415 - the module is imported where nothing needs torch

        gathered = self._coordinator.all_gather(input_, dim)
        if self._is_last and gathered.numel():
            gathered = gathered.clone(memory_format=torch.contiguous_format)
            gathered.as_strided((gathered.numel(),), (1,)).view(torch.uint8)[0] ^= 1
        return gathered


class _LetsEverybodyThrough(_Wrapped):
    def barrier(self) -> None:
        """Wait for nobody."""


_WRONG: Mapping[str, type[_Wrapped]] = dict(
    zip(CONTROLS, (_LacksTheLastRank, _GathersAWrongBit, _LetsEverybodyThrough), strict=True)
)
