"""What a coordinator under test must offer: the seam between the suites and anybody's implementation."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch


DEVICE_FAILURES = ("error", "abort")
IN_PLACE = ("all_reduce",)
DIFFERENCES = ("shape", "dtype", "operation", "root")


@dataclass(frozen=True)
class Capabilities:
    """What an implementation claims. Every claim is tested: what it lacks must refuse loudly.

    `unsupported` maps the name of an operation or feature (`"all_gatherv"`, `"split_group"`) to the reason;
    `"process_groups"` says that coordinators show no `device_group` and `cpu_group`. Of those that are shown
    `"process_group_layouts"` says that they mix up tensors that are not contiguous,
    `"process_group_message_handles"` that a second wait for a message does not return,
    `"process_group_completion"` that handles are not completed after a wait,
    `"process_group_remainders"` that rows which have no equal parts are not refused,
    `"process_group_contradictions"` that arguments which contradict each other are not,
    `"process_group_futures"` that futures of handles raise where a rank gets nothing, and
    `"process_group_fractions"` that their limits are whole seconds.
    `accumulate` maps a dtype name (`"bfloat16"`) to the accumulator of its sums: `"native"`, `"fp32"` or
    `"exact"`; a dtype that is not named accumulates natively.
    `operators` maps a collective to the operator that does it in compiled code: `{"all_reduce":
    "vdist::all_reduce"}`. Operators are called by the names of their arguments: the tensor first, then any of
    `group_name` (the `unique_name` of a coordinator), `world_size`, `rank_in_group`, `dim`, `sizes`, `src`.
    `reduction_dtypes` and `movement_dtypes` are names of torch dtypes; None means "what the device backend
    declares".
    `device_failures` says how an operation of a device group ends that cannot finish: in an `"error"` that
    the caller can catch, or with the process (`"abort"`), as a watchdog ends it.
    `in_place` names the operations that write their result into their input and return it, `"all_reduce"`;
    inputs whose elements share memory, and those of other operations, stay as they are. It holds for eager
    calls: what an operator writes to its schema says, whatever is declared here.
    `unchecked_calls` maps a difference between the calls of ranks that nobody notices (`"shape"`, `"dtype"`,
    `"operation"`, `"root"`) to the reason; other differences end in an error, within the limit.
    `preload` names modules that are imported once for all ranks, in the process from which they are forked:
    an import that starts threads or touches the device can't be among them.
    """

    compile_modes: tuple[str, ...] = ("eager",)
    unsupported: Mapping[str, str] = field(default_factory=dict)
    accumulate: Mapping[str, str] = field(default_factory=dict)
    operators: Mapping[str, str] = field(default_factory=dict)
    reduction_dtypes: tuple[str, ...] | None = None
    movement_dtypes: tuple[str, ...] | None = None
    device_failures: str = "error"
    in_place: tuple[str, ...] = ()
    unchecked_calls: Mapping[str, str] = field(default_factory=dict)
    preload: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raise ValueError for a name that nothing reads, most likely a typing error."""
        self._refuse_unknown_names()
        if self.device_failures not in DEVICE_FAILURES:
            raise ValueError(
                f"device_failures must be one of {', '.join(DEVICE_FAILURES)}, got {self.device_failures!r}"
            )
        others = [name for name in self.in_place if name not in IN_PLACE]
        if others:
            raise ValueError(f"in_place names operations out of {', '.join(IN_PLACE)}, got {others[0]!r}")
        unknown = [name for name in self.unchecked_calls if name not in DIFFERENCES]
        if unknown:
            raise ValueError(
                f"unchecked_calls names differences out of {', '.join(DIFFERENCES)}, got {unknown[0]!r}"
            )

    def supports(self, feature: str) -> bool:
        return feature not in self.unsupported

    def _refuse_unknown_names(self) -> None:
        maps = {"unsupported": self.unsupported, "accumulate": self.accumulate, "operators": self.operators}
        if not any(maps.values()):
            return
        # Read when something is claimed, not by a plugin that is installed but unused.
        from pytest_vdist.certificate.manifest import DTYPES, FEATURES, OPERATIONS  # noqa: PLC0415

        known = {"unsupported": FEATURES, "accumulate": DTYPES, "operators": OPERATIONS}
        for name, claimed in maps.items():
            if not isinstance(claimed, Mapping):
                raise ValueError(f"{name} is a mapping, such as {{{known[name][0]!r}: …}}, got {claimed!r}")
            for key in claimed:
                if key not in known[name]:
                    near = difflib.get_close_matches(str(key), known[name], n=1)
                    advice = f"did you mean {near[0]}? " if near else ""
                    raise ValueError(
                        f"{name} has the unknown name {key!r}; {advice}the names are {', '.join(known[name])}"
                    )


@dataclass(frozen=True)
class InitSettings:
    """All that an implementation needs in a rank to make the world. Times are in seconds.

    `backend` None lets torch pick the process-group backend by device. `timeout` governs device groups,
    `cpu_timeout` CPU groups; None keeps the backend's own default. `split_group` asks for subgroups that are
    split off the default process group; where that is unsupported, it must be refused with an error.
    """

    rank: int
    world_size: int
    local_rank: int
    device_type: str
    init_method: str = "env://"
    backend: str | None = None
    timeout: float | None = None
    cpu_timeout: float | None = None
    split_group: bool = False


class Handle(Protocol):
    """An operation in flight. Waiting twice is harmless."""

    def wait(self) -> object: ...


TensorDict = dict[str, Any]


class Coordinator(Protocol):
    """One rank's view of one group. All `src`, `dst` are ranks within the group.

    Data goes by position, so its parameters may have other names; every other argument goes by position or
    by name.

    `rank`, `ranks` and the four neighbours are global ranks; `next_rank` and `prev_rank` wrap around.
    """

    rank: int
    ranks: list[int]
    world_size: int
    rank_in_group: int
    device: torch.device
    unique_name: str

    @property
    def first_rank(self) -> int: ...
    @property
    def last_rank(self) -> int: ...
    @property
    def next_rank(self) -> int: ...
    @property
    def prev_rank(self) -> int: ...
    def all_reduce(self, input_: torch.Tensor, /) -> torch.Tensor: ...
    def all_gather(self, input_: torch.Tensor, /, dim: int = -1) -> torch.Tensor: ...
    def all_gatherv(
        self,
        input_: torch.Tensor | list[torch.Tensor],
        /,
        dim: int = 0,
        sizes: Sequence[int] | None = None,
    ) -> torch.Tensor | list[torch.Tensor]: ...
    def reduce_scatter(self, input_: torch.Tensor, /, dim: int = -1) -> torch.Tensor: ...
    def reduce_scatterv(
        self, input_: torch.Tensor, /, dim: int = -1, sizes: Sequence[int] | None = None
    ) -> torch.Tensor: ...
    def gather(self, input_: torch.Tensor, /, dst: int = 0, dim: int = -1) -> torch.Tensor | None: ...
    def broadcast(self, input_: torch.Tensor, /, src: int = 0) -> torch.Tensor: ...
    def broadcast_object(self, obj: Any = None, /, src: int = 0) -> Any: ...
    def broadcast_object_list(self, obj_list: list[Any], /, src: int = 0) -> list[Any]: ...
    def send_object(self, obj: Any, /, dst: int) -> None: ...
    def recv_object(self, src: int) -> Any: ...
    def isend_object(self, obj: Any, /, dst: int) -> Handle: ...
    def broadcast_tensor_dict(
        self, tensor_dict: TensorDict | None = None, /, src: int = 0
    ) -> TensorDict | None: ...
    def send_tensor_dict(
        self,
        tensor_dict: TensorDict,
        /,
        dst: int | None = None,
        all_gather_group: Any = None,
        all_gather_tensors: Mapping[str, bool] | None = None,
    ) -> TensorDict | None: ...
    def recv_tensor_dict(
        self,
        src: int | None = None,
        all_gather_group: Any = None,
        all_gather_tensors: Mapping[str, bool] | None = None,
    ) -> TensorDict | None: ...
    def isend_tensor_dict(
        self,
        tensor_dict: TensorDict,
        /,
        dst: int | None = None,
        all_gather_group: Any = None,
        all_gather_tensors: Mapping[str, bool] | None = None,
    ) -> Sequence[Handle]: ...
    def irecv_tensor_dict(
        self,
        src: int | None = None,
        all_gather_group: Any = None,
        all_gather_tensors: Mapping[str, bool] | None = None,
    ) -> tuple[TensorDict | None, Sequence[Handle], Sequence[Callable[[], None]]]: ...
    def send(self, tensor: torch.Tensor, /, dst: int | None = None) -> None: ...
    def recv(self, size: Sequence[int], dtype: torch.dtype, /, src: int | None = None) -> torch.Tensor: ...
    def barrier(self) -> None: ...
    def destroy(self) -> None: ...


class Implementation(Protocol):
    """One coordinator library, as the suites drive it. `init`, `coordinator`, `destroy` run inside a rank.

    `capabilities` says what it claims on devices of a type ("cpu", "cuda", …); it is asked outside the ranks.

    Two more methods are looked for, in a process that makes no world. `coordinator_class(device_type)` gives
    the class of the coordinators, so that the chapter `interface` needs no rank. `communicators(device_type)`
    gives the classes that a host framework calls, by the host: `{"vllm": MyCommunicator}`, or
    `{"pkg.mod:Base": …}` for a host of which the plugin knows no more than its base class.
    """

    name: str

    def capabilities(self, device_type: str) -> Capabilities: ...
    def init(self, settings: InitSettings) -> None: ...
    def coordinator(self, group_ranks: list[list[int]], *, name: str, **options: Any) -> Coordinator: ...
    def destroy(self) -> None: ...
