"""What a device backend is: the data that a vendor registers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from string import Formatter

START_METHODS = ("forkserver", "spawn")
_SHARING = "None, or names of variables with texts in which nothing but {node} is in braces"
_DTYPES = 'a tuple of names of torch dtypes, such as ("float32", "int64")'


class BackendError(Exception):
    """Raised when a device backend is unknown, cannot be loaded, or has no device on this machine."""


@dataclass(frozen=True)
class Availability:
    """Whether this machine has the device. `looked_for` says what was asked, `remedy` how to get it."""

    device_count: int
    looked_for: str
    remedy: str = ""

    @property
    def available(self) -> bool:
        return self.device_count > 0


@dataclass(frozen=True)
class DeviceBackend:
    """A device and its process-group backend, as named by `--vdist-backend`.

    `probe` tells what is on this machine; it runs in the controller, which never forks, and may import torch.
    `shares_device` says whether several ranks may use one device (CPU): then it does not bound world sizes.
    `rank_environment` is set in every rank before torch makes a process group.
    `visible_devices_variable` names the variable that tells the driver which devices a process may see.
    `rank_setup`, "pkg.mod:function", is called without arguments in every rank before anything touches the
    device: it makes torch know a device that is not built in. Where `start_method` is "forkserver", the
    module is imported before ranks are forked, so its import must start neither threads nor the driver.
    `reduction_dtypes` and `movement_dtypes` are names of torch dtypes that the process-group backend takes.
    `process_group_limits` maps what that backend lacks to the reason: an operation of torch.distributed
    (`"all_to_all"`), a reduction (`"band"`), parts that are `"unequal"` or `"stacked"`, one of these in one
    operation (`"all_gather:unequal"`), or the future of a handle (`"get_future:reduce"`). Such calls must be
    refused by all ranks, or be right.
    `sharing_environment` says how several ranks can have one device, for --vdist-ranks-per-device: what their
    environment needs, with `{node}` for the number of the node that a rank is placed on as if there were
    several. None says that they cannot.
    """

    name: str
    device_type: str
    process_group_backend: str
    probe: Callable[[], Availability]
    library_version: Callable[[], str]
    reduction_dtypes: tuple[str, ...]
    movement_dtypes: tuple[str, ...]
    shares_device: bool = False
    rank_environment: Mapping[str, str] = field(default_factory=dict)
    start_method: str = "forkserver"
    visible_devices_variable: str = ""
    rank_setup: str = ""
    process_group_limits: Mapping[str, str] = field(default_factory=dict)
    sharing_environment: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        """Raise BackendError for values that would end as puzzles in fixtures or ranks."""
        expected = {
            "start_method": (f"one of {', '.join(START_METHODS)}", self.start_method in START_METHODS),
            "rank_setup": ("pkg.mod:function, or empty", not self.rank_setup or _names_one(self.rank_setup)),
            "reduction_dtypes": (_DTYPES, _is_tuple_of_names(self.reduction_dtypes)),
            "movement_dtypes": (_DTYPES, _is_tuple_of_names(self.movement_dtypes)),
            "sharing_environment": (_SHARING, _is_template(self.sharing_environment)),
        }
        for name, (form, holds) in expected.items():
            if not holds:
                raise BackendError(
                    f"device backend {self.name!r}: {name} must be {form}, got {getattr(self, name)!r}"
                )


def _names_one(text: str) -> bool:
    module, colon, function = text.partition(":")
    return bool(colon) and all(part.isidentifier() for part in (*module.split("."), function))


def _is_template(environment: object) -> bool:
    if environment is None:
        return True
    return isinstance(environment, Mapping) and all(
        isinstance(name, str) and bool(name) and not {"=", "\0"} & set(name) and _is_text_of_node(value)
        for name, value in environment.items()
    )


def _is_text_of_node(value: object) -> bool:
    try:
        fields = list(Formatter().parse(value)) if isinstance(value, str) and "\0" not in value else None
    except ValueError:  # a brace too many or too few
        return False
    return fields is not None and all(
        name is None or (name, form, conversion) == ("node", "", None) for _, name, form, conversion in fields
    )


def _is_tuple_of_names(value: object) -> bool:
    return isinstance(value, tuple) and all(isinstance(each, str) and each.isidentifier() for each in value)
