"""CudaCommunicator where there is no CUDA device: what it decides, and what it says of symmetric memory."""

from __future__ import annotations

import pytest
import torch

from pytest_vdist import DistributedRun
from pytest_vdist.reference_impl import envs
from pytest_vdist.reference_impl.communicators import symmetric
from pytest_vdist.reference_impl.communicators.cuda import CudaCommunicator
from pytest_vdist.reference_impl.communicators.symmetric import LARGEST, SymmetricSums


def test_without_a_cuda_device_symmetric_memory_is_not_used_and_says_why(
    distributed_run: DistributedRun,
) -> None:
    def body() -> tuple[str | None, list[float]]:
        world = torch.distributed.group.WORLD
        assert world is not None
        communicator = CudaCommunicator(world)
        total = communicator.all_reduce(torch.full((4,), 1.0 + communicator.rank))
        return communicator.symmetric_memory_obstacle, total.tolist()

    wanted = distributed_run(body, world_size=2, env={envs.SYMMETRIC_MEMORY: "1"})
    assert wanted == [("rank 0: it is for CUDA devices, and this rank's is cpu", [3.0] * 4)] * 2
    assert distributed_run(body, world_size=2) == [("VDIST_SYMMETRIC_MEMORY is not 1", [3.0] * 4)] * 2


@pytest.mark.parametrize(
    ("shape", "dtype", "taken"),
    [
        ((LARGEST // 4,), torch.float32, True),
        ((LARGEST // 4 + 4,), torch.float32, False),
        ((2, 4), torch.bfloat16, True),
        ((7,), torch.bfloat16, False),
        ((8,), torch.float16, False),
        ((0, 4), torch.float32, False),
    ],
    ids=str,
)
def test_small_tensors_that_the_kernel_can_load_are_summed_there(
    shape: tuple[int, ...], dtype: torch.dtype, *, taken: bool
) -> None:
    assert SymmetricSums.takes(torch.zeros(shape, dtype=dtype)) is taken


def test_a_variable_that_is_neither_0_nor_1_is_refused() -> None:
    with pytest.raises(
        ValueError, match="environment variable VDIST_SYMMETRIC_MEMORY='yes' is not 0 or 1; set 1"
    ):
        envs.symmetric_memory_is_wanted({"VDIST_SYMMETRIC_MEMORY": "yes"})


def test_ranks_on_several_machines_do_not_try(distributed_run: DistributedRun) -> None:
    def body() -> object:
        from pytest_vdist.reference_impl.ordered_group import OrderedGroup  # noqa: PLC0415

        world = torch.distributed.group.WORLD
        assert world is not None
        rank = torch.distributed.get_rank()
        symmetric._obstacle = lambda device: None
        symmetric._BOOT_ID = type("File", (), {"read_text": lambda self: str(rank)})()
        return symmetric.connect(OrderedGroup(world, [0, 1]), torch.device("cpu"), world)

    assert distributed_run(body, world_size=2, fresh=True) == ["the ranks are on several machines"] * 2
