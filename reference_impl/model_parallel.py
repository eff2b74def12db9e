"""Groups for tensor, pipeline, data and expert parallelism.

Ranks are laid out data x pipeline x tensor with tensor innermost, so that tensor groups are neighbours. An
expert group spans data and tensor ranks of one pipeline stage.
"""

from __future__ import annotations

from dataclasses import dataclass

from .coordinator import GroupCoordinator
from .environment import create_group, destroy_groups, get_world_group


@dataclass(frozen=True)
class ModelParallel:
    """The four groups of this rank."""

    tensor: GroupCoordinator
    pipeline: GroupCoordinator
    data: GroupCoordinator
    expert: GroupCoordinator

    @property
    def sizes(self) -> tuple[int, int, int]:
        """World sizes of the tensor, pipeline and data groups."""
        return self.tensor.world_size, self.pipeline.world_size, self.data.world_size

    def destroy(self) -> None:
        destroy_groups((self.tensor, self.pipeline, self.data, self.expert))


class _State:
    groups: ModelParallel | None = None


_state = _State()


def group_layout(
    world_size: int, tensor: int = 1, pipeline: int = 1, data: int | None = None
) -> dict[str, list[list[int]]]:
    """Return the global ranks of the groups "tp", "pp", "dp" and "ep"; each rank is once in each list.

    Rank = (data index * pipeline + pipeline index) * tensor + tensor index. `data` None takes the ranks that
    are left. Raises ValueError unless the sizes are above 0 and multiply to `world_size`.
    """
    data = _data_size(world_size, tensor, pipeline, data)

    def rank(data_index: int, pipeline_index: int, tensor_index: int) -> int:
        return (data_index * pipeline + pipeline_index) * tensor + tensor_index

    return {
        "tp": [[rank(d, p, t) for t in range(tensor)] for d in range(data) for p in range(pipeline)],
        "pp": [[rank(d, p, t) for p in range(pipeline)] for d in range(data) for t in range(tensor)],
        "dp": [[rank(d, p, t) for d in range(data)] for p in range(pipeline) for t in range(tensor)],
        "ep": [[rank(d, p, t) for d in range(data) for t in range(tensor)] for p in range(pipeline)],
    }


def initialize_model_parallel(
    tensor_model_parallel_size: int = 1,
    pipeline_model_parallel_size: int = 1,
    data_parallel_size: int | None = None,
    backend: str | None = None,
) -> None:
    """Make the tensor, pipeline, data and expert groups; every rank calls it with the same sizes.

    Raises ValueError for sizes that do not multiply to the world size, RuntimeError if the groups exist
    already or there is no world.
    """
    if model_parallel_is_initialized():
        raise RuntimeError("the model parallel groups exist already: call destroy_model_parallel() first")
    layout = group_layout(
        get_world_group().world_size,
        tensor_model_parallel_size,
        pipeline_model_parallel_size,
        data_parallel_size,
    )
    made: list[GroupCoordinator] = []
    try:
        for name, group_ranks in layout.items():
            made.append(create_group(group_ranks, name, torch_distributed_backend=backend))
    except BaseException:
        for group in made:
            group.destroy()
        raise
    _state.groups = ModelParallel(*made)


def ensure_model_parallel_initialized(
    tensor_model_parallel_size: int,
    pipeline_model_parallel_size: int,
    data_parallel_size: int | None = None,
    backend: str | None = None,
) -> None:
    """Make the groups unless they exist. Raises ValueError if they exist with other sizes."""
    if not model_parallel_is_initialized():
        initialize_model_parallel(
            tensor_model_parallel_size, pipeline_model_parallel_size, data_parallel_size, backend
        )
        return
    existing = _groups().sizes
    data = existing[2] if data_parallel_size is None else data_parallel_size
    asked = (tensor_model_parallel_size, pipeline_model_parallel_size, data)
    if asked != existing:
        raise ValueError(
            f"model parallel groups of sizes (tensor, pipeline, data) = {existing} exist, and {asked} was "
            "asked for: call destroy_model_parallel() first"
        )


def model_parallel_is_initialized() -> bool:
    """Tell whether the groups exist in the present world."""
    return _state.groups is not None and not _state.groups.tensor.is_destroyed


def get_tp_group() -> GroupCoordinator:
    """Return this rank's tensor-parallel group. Raises RuntimeError before `initialize_model_parallel`."""
    return _groups().tensor


def get_pp_group() -> GroupCoordinator:
    """Return this rank's pipeline-parallel group. Raises RuntimeError before `initialize_model_parallel`."""
    return _groups().pipeline


def get_dp_group() -> GroupCoordinator:
    """Return this rank's data-parallel group. Raises RuntimeError before `initialize_model_parallel`."""
    return _groups().data


def get_ep_group() -> GroupCoordinator:
    """Return this rank's expert-parallel group. Raises RuntimeError before `initialize_model_parallel`."""
    return _groups().expert


def get_tensor_model_parallel_rank() -> int:
    return get_tp_group().rank_in_group


def get_tensor_model_parallel_world_size() -> int:
    return get_tp_group().world_size


def get_pipeline_model_parallel_rank() -> int:
    return get_pp_group().rank_in_group


def get_pipeline_model_parallel_world_size() -> int:
    return get_pp_group().world_size


def get_data_parallel_rank() -> int:
    return get_dp_group().rank_in_group


def get_data_parallel_world_size() -> int:
    return get_dp_group().world_size


def get_expert_parallel_rank() -> int:
    return get_ep_group().rank_in_group


def get_expert_parallel_world_size() -> int:
    return get_ep_group().world_size


def destroy_model_parallel() -> None:
    """Destroy the groups, if there are any."""
    if _state.groups is not None:
        groups, _state.groups = _state.groups, None
        groups.destroy()


def _groups() -> ModelParallel:
    if _state.groups is None or _state.groups.tensor.is_destroyed:
        raise RuntimeError("the model parallel groups do not exist: call initialize_model_parallel() first")
    return _state.groups


def _data_size(world_size: int, tensor: int, pipeline: int, data: int | None) -> int:
    for name, size in (("tensor", tensor), ("pipeline", pipeline), ("data", 1 if data is None else data)):
        if size < 1:
            raise ValueError(f"{name} parallel size {size} is not above 0")
    taken = tensor * pipeline
    if data is None and world_size % taken == 0:
        data = world_size // taken
    if data is None or taken * data != world_size:
        raise ValueError(
            f"tensor {tensor} x pipeline {pipeline} x data {'?' if data is None else data} parallel sizes do "
            f"not multiply to the world size {world_size}: change a size, or start another number of ranks"
        )
    return data
