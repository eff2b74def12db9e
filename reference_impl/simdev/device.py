"""The device module: what torch and its users find as `torch.simdev`, as they find `torch.cuda`."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import torch

from .extension import extension

DeviceLike = torch.device | str | int | None

Stream = torch.Stream
Event = torch.Event

_OF_INDUCTOR = frozenset({"CppWrapperCodegen", "PythonWrapperCodegen", "Scheduling", "WrapperFxCodegen"})


def __getattr__(name: str) -> Any:
    """Give inductor the classes with which it makes code for the device, when it asks for them."""
    if name not in _OF_INDUCTOR:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import inductor  # noqa: PLC0415 - imports the compiler

    return getattr(inductor, name)


def is_available() -> bool:
    return device_count() > 0


def is_initialized() -> bool:
    return True


def device_count() -> int:
    return int(extension().device_count())


def current_device() -> int:
    return int(extension().current_device())


def set_device(device: DeviceLike) -> None:
    """Make a device the current one of this thread. Raises RuntimeError for one that does not exist."""
    extension().set_device(_index(device))


class device:  # noqa: N801 - the name that torch asks for
    """Context in which a device is the current one; None changes nothing."""

    def __init__(self, device: DeviceLike) -> None:
        self._index = _index(device)
        self._before = -1

    def __enter__(self) -> None:
        self._before = current_device()
        set_device(self._index)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        set_device(self._before)


def synchronize(device: DeviceLike = None) -> None:
    """Return at once, as all work is done. Raises RuntimeError for a device that does not exist."""
    torch.accelerator.synchronize(_index(device))


def current_stream(device: DeviceLike = None) -> torch.Stream:
    return torch.accelerator.current_stream(_index(device))


def manual_seed(seed: int) -> None:
    """Seed the generator of the current device."""
    _generator(None).manual_seed(seed)


def manual_seed_all(seed: int) -> None:
    """Seed the generators of all devices; `torch.manual_seed` calls it."""
    for index in range(device_count()):
        _generator(index).manual_seed(seed)


def initial_seed() -> int:
    return int(_generator(None).initial_seed())


def get_rng_state(device: DeviceLike = None) -> torch.Tensor:
    state: torch.Tensor = _generator(device).get_state()
    return state


def set_rng_state(new_state: torch.Tensor, device: DeviceLike = None) -> None:
    _generator(device).set_state(new_state)


def memory_allocated(device: DeviceLike = None) -> int:
    """Return the bytes that tensors on a device hold."""
    return torch.accelerator.memory_allocated(_index(device))


def get_amp_supported_dtype() -> list[torch.dtype]:
    return [torch.bfloat16, torch.float16]


def _is_in_bad_fork() -> bool:
    """Tell torch that forking is harmless: there is no driver whose state a fork could break."""
    return False


def _generator(device: DeviceLike) -> Any:
    return extension().default_generator(_index(device))


def _index(device: DeviceLike) -> int:
    if isinstance(device, int):
        return device
    index = torch.device(device).index if device is not None else None
    return current_device() if index is None else index
