"""Who is connected to whom, on the simulated accelerator, which connects as NCCL does."""

from __future__ import annotations

from typing import Any

import torch

from pytest_vdist.reference_impl import environment

from .conftest import Run


def test_the_world_is_not_connected_before_its_first_call_as_other_groups_are(
    run_on_simdev: Run,
) -> None:
    def body() -> list[int]:
        groups = [
            environment.get_world_group(),
            environment.create_group([[0, 1, 2]], connect=False),
            environment.create_group([[0, 1, 2]]),
        ]
        backends: list[Any] = [group.device_group._get_backend(group.device) for group in groups]
        return [backend._get_sequence_number_for_group() for backend in backends]

    assert run_on_simdev(body, 3) == [[0, 0, 1]] * 3


def test_two_ranks_of_the_world_exchange_messages_while_others_are_elsewhere(
    run_on_simdev: Run,
) -> None:
    """A batch would ask for the third rank: the communicator of the group is made by all of its members."""

    def body() -> Any:
        world = environment.get_world_group()
        received: list[Any] = []
        for number in range(2):
            if world.rank == 0:
                world.send(torch.full((2,), number + 1.0, device=world.device), 1)
                world.send_tensor_dict({"x": torch.full((1,), number + 3.0, device=world.device)}, 1)
            if world.rank == 1:
                received.append(world.recv((2,), torch.float32, 0).tolist())
                both = world.recv_tensor_dict(0)
                assert both is not None
                received.append(both["x"].tolist())
            if number == 0:  # what all ranks call makes no difference to the messages that follow
                world.cpu_group.barrier().wait()
                received.append(world.all_reduce(torch.ones(1, device=world.device)).item())
        return received

    assert run_on_simdev(body, 3) == [[3.0], [[1.0, 1.0], [3.0], 3.0, [2.0, 2.0], [4.0]], [3.0]]
