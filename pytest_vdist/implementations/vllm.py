"""The adapter of the installed vLLM: its GroupCoordinator over its platform's communicator, unchanged."""

from __future__ import annotations

import importlib.util
import inspect
import math
import os
from contextlib import ExitStack
from datetime import timedelta
from importlib import import_module, metadata
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from packaging.version import Version

from pytest_vdist.implementations.protocol import Capabilities, InitSettings
from pytest_vdist.implementations.torch_defects import known_defects, unchecked_calls
from pytest_vdist.reference_impl.split_groups import torch_obstacle

if TYPE_CHECKING:
    from pytest_vdist.implementations.protocol import Coordinator

OLDEST = "0.32"  # VLLM_TARGET_DEVICE=cpu picks the platform from this release on
_INSTALL = f"install vllm {OLDEST} or newer into the environment of pytest"
_CALLED = {
    "init_distributed_environment": (
        "world_size",
        "rank",
        "distributed_init_method",
        "local_rank",
        "backend",
        "timeout",
    ),
    "init_model_parallel_group": ("group_ranks", "local_rank", "backend", "group_name"),
    "destroy_distributed_environment": (),
}
_PRELOAD_ON_CPU = ("pytest_vdist.implementations.vllm_preload",)
_WHOLE_SECONDS = "the limits of vLLM's ParallelConfig are whole seconds"
_RAGGED = "vLLM's CpuCommunicator does not override it: NotImplementedError"


class VllmError(Exception):
    """Raised when vLLM is not installed, is too old, or does not have the interface that is called here."""


class VllmImplementation:
    """The coordinator of the vLLM that is installed, on the platform that vLLM picks for the device.

    Nothing of vLLM is changed, and nothing is imported before `init`. Raises VllmError without vLLM.
    """

    name = "vllm"

    def __init__(self) -> None:
        require_vllm()
        self._local_rank = 0
        self._made: list[Any] = []
        self._config = ExitStack()

    def capabilities(self, device_type: str) -> Capabilities:
        """Declare what is known of vLLM's communicator for the CPU; of others, only what torch lacks."""
        obstacle = torch_obstacle(device_type)
        unsupported = known_defects(device_type) | {"process_group_fractions": _WHOLE_SECONDS}
        if obstacle is not None:
            unsupported["split_group"] = obstacle
        if device_type == "cpu":
            unsupported |= {"all_gatherv": _RAGGED, "reduce_scatterv": _RAGGED}
        return Capabilities(
            unsupported=unsupported,
            device_failures="abort" if device_type == "cuda" else "error",
            unchecked_calls=unchecked_calls(device_type),
            preload=_PRELOAD_ON_CPU if device_type == "cpu" else (),
        )

    def coordinator_class(self, device_type: str) -> type:
        """Name the class that the chapter `interface` looks at."""
        prepare_import(device_type)
        return cast("type", parallel_state().GroupCoordinator)

    def communicators(self, device_type: str) -> dict[str, type]:
        """Name the communicator of vLLM's platform, a vendor's where there is one."""
        return {"vllm": communicator_class(device_type)}

    def init(self, settings: InitSettings) -> None:
        """Make vLLM's world, with limits rounded up to whole seconds.

        Raises VllmError for another interface, and where groups are to be split that this torch can't split:
        vLLM would find that out only after the ranks have met.
        """
        obstacle = torch_obstacle(settings.device_type) if settings.split_group else None
        if obstacle is not None:
            raise VllmError(obstacle)
        prepare_world(settings)
        state = parallel_state()
        self._local_rank = settings.local_rank
        limits = _limits(settings)
        if limits:
            self._config.enter_context(_current_config(limits))
        state.init_distributed_environment(
            world_size=settings.world_size,
            rank=settings.rank,
            distributed_init_method=settings.init_method,
            local_rank=settings.local_rank,
            backend=settings.backend or _platform().dist_backend,
            timeout=None if settings.timeout is None else timedelta(seconds=settings.timeout),
        )

    def coordinator(self, group_ranks: list[list[int]], *, name: str, **options: Any) -> Coordinator:
        """Make a GroupCoordinator with the communicator of the platform; `options` go to vLLM."""
        made = parallel_state().init_model_parallel_group(
            group_ranks=group_ranks,
            local_rank=self._local_rank,
            backend=_platform().dist_backend,
            group_name=name,
            **options,
        )
        self._made.append(made)
        return cast("Coordinator", made)

    def destroy(self) -> None:
        """Destroy the coordinators and vLLM's world; harmless without one."""
        while self._made:
            self._made.pop().destroy()
        parallel_state().destroy_distributed_environment()
        self._config.close()


def require_vllm() -> str:
    """Return the version of vLLM without importing it. Raises VllmError if there is none, or an old one."""
    if importlib.util.find_spec("vllm") is None:
        raise VllmError(f"vLLM is not installed here; {_INSTALL}")
    try:
        version = metadata.version("vllm")
    except metadata.PackageNotFoundError:
        raise VllmError(f"vLLM is here without its metadata: which version is it? {_INSTALL}") from None
    if Version(version) < Version(OLDEST):
        raise VllmError(f"vLLM must be {OLDEST} or newer, got {version}; {_INSTALL}")
    return version


def prepare_import(device_type: str) -> None:
    """Set what vLLM reads from the environment when it is imported in this process."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    if device_type == "cpu":
        os.environ["VLLM_TARGET_DEVICE"] = "cpu"


def prepare_world(settings: InitSettings) -> None:
    """Set what vLLM reads from the environment when its world is made."""
    prepare_import(settings.device_type)
    os.environ["VLLM_DISTRIBUTED_USE_SPLIT_GROUP"] = str(int(settings.split_group))
    os.environ["VLLM_DIST_IDENT"] = f"vdist-{os.environ.get('MASTER_PORT', '0')}"
    os.environ.setdefault("VLLM_HOST_IP", "127.0.0.1")


def parallel_state() -> ModuleType:
    """Return vLLM's module of coordinators. Raises VllmError if it lacks a function or argument."""
    module = import_module("vllm.distributed.parallel_state")
    missing = missing_interface(module)
    if missing:
        raise VllmError(
            f"vLLM {metadata.version('vllm')} has moved its interface: {module.__name__} lacks "
            f"{', '.join(missing)}; releases {OLDEST} to 0.33 have it"
        )
    return module


def missing_interface(module: object) -> list[str]:
    """Return what is called here and the module lacks: functions, and arguments as `function(argument)`."""
    missing = []
    for name, arguments in _CALLED.items():
        function = getattr(module, name, None)
        if not callable(function):
            missing.append(name)
            continue
        known = inspect.signature(function).parameters
        missing += [f"{name}({argument})" for argument in arguments if argument not in known]
    return missing


def communicator_class(device_type: str) -> type:
    """Return the class that vLLM's platform picks for its coordinators."""
    prepare_import(device_type)
    resolve = import_module("vllm.utils.import_utils").resolve_obj_by_qualname
    return cast("type", resolve(_platform().get_device_communicator_cls()))


def _limits(settings: InitSettings) -> dict[str, int]:
    asked = {
        "distributed_timeout_seconds": settings.timeout,
        "cpu_distributed_timeout_seconds": settings.cpu_timeout,
    }
    return {name: max(1, math.ceil(value)) for name, value in asked.items() if value is not None}


def _platform() -> Any:
    return import_module("vllm.platforms").current_platform


def _current_config(limits: dict[str, int]) -> Any:
    """Return vLLM's context in which new groups get the limits: open while groups are made."""
    config = import_module("vllm.config")
    return config.set_current_vllm_config(config.VllmConfig(parallel_config=config.ParallelConfig(**limits)))
