"""A group of one rank checks its arguments as others do, and its results are copies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
import torch.distributed as dist

from pytest_vdist.reference_impl import names, platform
from pytest_vdist.reference_impl.communicators.base import DeviceCommunicatorBase
from pytest_vdist.reference_impl.coordinator import GroupCoordinator

Operation = Callable[[GroupCoordinator, torch.Tensor], Any]
Call = Callable[[GroupCoordinator], Any]

X = torch.arange(24.0).reshape(2, 3, 4)


@pytest.fixture(scope="module", autouse=True)
def _world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLOO_SOCKET_IFNAME", "lo")
        store = tmp_path_factory.mktemp("world") / "store"
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
        yield
        dist.destroy_process_group()
        names.reset()


@pytest.fixture
def group() -> Iterator[GroupCoordinator]:
    group = GroupCoordinator([[0]], 0, group_name="tp", device_type="cpu")
    yield group
    group.destroy()


OPERATIONS: dict[str, Operation] = {
    "all_reduce": lambda group, x: group.all_reduce(x),
    "all_gather": lambda group, x: group.all_gather(x, 1),
    "all_gatherv": lambda group, x: group.all_gatherv(x, 1),
    "all_gatherv with sizes": lambda group, x: group.all_gatherv(x, -1, [x.shape[-1]]),
    "all_gatherv of a list": lambda group, x: group.all_gatherv([x, x])[1],
    "reduce_scatter": lambda group, x: group.reduce_scatter(x),
    "reduce_scatterv": lambda group, x: group.reduce_scatterv(x, 0, [x.shape[0]]),
    "gather": lambda group, x: group.gather(x),
}


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
@pytest.mark.parametrize("view", [X, X.transpose(0, 2), X[..., ::2], X[:, 1:], X[:0]])
def test_the_result_is_a_contiguous_copy_of_the_input(
    group: GroupCoordinator, operation: Operation, view: torch.Tensor
) -> None:
    result = operation(group, view)
    assert torch.equal(result, view)
    assert result.is_contiguous()
    assert not view.numel() or result.untyped_storage().data_ptr() != X.untyped_storage().data_ptr()


def test_a_sum_of_a_tensor_without_dimensions_has_none(group: GroupCoordinator) -> None:
    assert group.all_reduce(torch.tensor(3.0)).shape == ()


def test_a_chunk_is_written_into_any_view(group: GroupCoordinator) -> None:
    memory = torch.zeros(2, 3, 8)
    group.reduce_scatterv_into_output(X, memory[..., ::2])
    assert torch.equal(memory[..., ::2], X)
    assert not memory[..., 1::2].any()


def test_broadcast_returns_the_tensor_itself(group: GroupCoordinator) -> None:
    tensor = X[:, ::2]
    assert group.broadcast(tensor) is tensor


def test_objects_and_dictionaries_come_back_as_they_are(group: GroupCoordinator) -> None:
    obj, objects, tensors = object(), [1, None], {"x": X}
    assert group.broadcast_object(obj) is obj
    assert group.broadcast_object_list(objects) is objects
    assert objects == [1, None]
    assert group.broadcast_tensor_dict(tensors) is tensors
    assert group.send_tensor_dict(tensors) is tensors


def test_there_is_no_dictionary_to_receive(group: GroupCoordinator) -> None:
    assert group.recv_tensor_dict() is None
    assert group.isend_tensor_dict({"x": X}) == []
    assert group.irecv_tensor_dict() == (None, [], [])


def test_this_rank_is_first_last_next_and_previous(group: GroupCoordinator) -> None:
    assert (group.first_rank, group.last_rank, group.next_rank, group.prev_rank) == (0, 0, 0, 0)
    assert group.is_first_rank
    assert group.is_last_rank


def test_there_is_no_device_communicator(group: GroupCoordinator) -> None:
    assert group.device_communicator is None


WRONG: dict[str, Call] = {
    "dim of all_gather": lambda group: group.all_gather(X, 3),
    "dim of all_gatherv": lambda group: group.all_gatherv(X, 3),
    "dim of reduce_scatter": lambda group: group.reduce_scatter(X, -4),
    "dim of gather": lambda group: group.gather(X, 0, 3),
    "0-d": lambda group: group.all_gather(torch.tensor(1.0)),
    "dst of gather": lambda group: group.gather(X, 1),
    "src of broadcast": lambda group: group.broadcast(X, -1),
    "src of broadcast_object": lambda group: group.broadcast_object(1, 1),
    "src of broadcast_object_list": lambda group: group.broadcast_object_list([1], 1),
    "src of broadcast_tensor_dict": lambda group: group.broadcast_tensor_dict({}, 1),
    "sizes of all_gatherv": lambda group: group.all_gatherv(X, 0, [1]),
    "sizes of reduce_scatterv": lambda group: group.reduce_scatterv(X, 0, [1, 1]),
    "output": lambda group: group.reduce_scatterv_into_output(X, X[0].clone()),
    "device": lambda group: group.all_reduce(torch.empty(2, device="meta")),
    "send to itself": lambda group: group.send(X),
    "recv from itself": lambda group: group.recv((1,), torch.float32),
    "send_object": lambda group: group.send_object(1, 0),
    "recv_object": lambda group: group.recv_object(0),
    "isend_object": lambda group: group.isend_object(1, 0),
    "dst of isend_tensor_dict": lambda group: group.isend_tensor_dict({}, 1),
    "src of irecv_tensor_dict": lambda group: group.irecv_tensor_dict(1),
}


@pytest.mark.parametrize("call", WRONG.values(), ids=WRONG)
def test_wrong_arguments_are_refused_naming_the_group(group: GroupCoordinator, call: Call) -> None:
    with pytest.raises(ValueError, match=f"group '{group.unique_name}'"):
        call(group)


NOT_AS_HINTED: Any = [1.0]

WRONG_TYPES: dict[str, Call] = {
    "bool sum": lambda group: group.all_reduce(X > 1),
    "int16 sum": lambda group: group.reduce_scatter(X.short()),
    "no tensor": lambda group: group.all_gather(NOT_AS_HINTED),
    "no dictionary to broadcast": lambda group: group.broadcast_tensor_dict(NOT_AS_HINTED),
    "no dictionary to send": lambda group: group.send_tensor_dict(NOT_AS_HINTED),
    "rank": lambda group: group.broadcast(X, NOT_AS_HINTED),
}


@pytest.mark.parametrize("call", WRONG_TYPES.values(), ids=WRONG_TYPES)
def test_arguments_of_a_wrong_type_are_refused(group: GroupCoordinator, call: Call) -> None:
    with pytest.raises(TypeError):
        call(group)


def operation_on_x(group: GroupCoordinator, operation: Operation) -> object:
    return operation(group, X)


USES: dict[str, Call] = {
    **{name: partial(operation_on_x, operation=operation) for name, operation in OPERATIONS.items()},
    "broadcast": lambda group: group.broadcast(X),
    "broadcast_object": lambda group: group.broadcast_object(1),
    "broadcast_object_list": lambda group: group.broadcast_object_list([1]),
    "broadcast_tensor_dict": lambda group: group.broadcast_tensor_dict({}),
    "send": lambda group: group.send(X, 0),
    "recv": lambda group: group.recv((1,), torch.float32, 0),
    "send_object": lambda group: group.send_object(1, 0),
    "recv_object": lambda group: group.recv_object(0),
    "isend_object": lambda group: group.isend_object(1, 0),
    "send_tensor_dict": lambda group: group.send_tensor_dict({}),
    "recv_tensor_dict": lambda group: group.recv_tensor_dict(),
    "isend_tensor_dict": lambda group: group.isend_tensor_dict({}),
    "irecv_tensor_dict": lambda group: group.irecv_tensor_dict(),
    "barrier": lambda group: group.barrier(),
    "make_sibling_device_group": lambda group: group.make_sibling_device_group(),
    "device_group": lambda group: group.device_group,
    "cpu_group": lambda group: group.cpu_group,
    "device_communicator": lambda group: group.device_communicator,
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_nothing_works_after_destroy(group: GroupCoordinator, use: Call) -> None:
    group.destroy()
    group.destroy()
    with pytest.raises(RuntimeError, match=f"group '{group.unique_name}' is destroyed"):
        use(group)


def test_a_destroyed_group_is_no_longer_known_by_its_name(group: GroupCoordinator) -> None:
    assert names.find(group.unique_name) is group
    group.destroy()
    assert group not in names.living()


def test_without_a_communicator_collectives_are_refused_and_messages_work() -> None:
    group = GroupCoordinator([[0]], 0, use_device_communicator=False, device_type="cpu")
    with pytest.raises(ValueError, match="No device communicator found for all_reduce of group 'anonymous:"):
        group.all_reduce(X)
    assert group.broadcast(X) is X
    assert group.broadcast_object(5) == 5
    group.barrier()
    group.destroy()


def test_a_group_whose_backend_cannot_move_its_device_is_refused_with_a_way_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "pytest_vdist.reference_impl.coordinator.local_device", lambda *_: torch.device("xpu", 0)
    )
    with pytest.raises(
        RuntimeError, match=r"cannot move tensors on xpu:0: .* torch_distributed_backend='xccl'"
    ):
        GroupCoordinator([[0]], 0)


def test_a_vendor_communicator_says_which_dtypes_it_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    class Integers(DeviceCommunicatorBase):
        reduction_dtypes = frozenset({torch.int16})

    monkeypatch.setattr(platform, "_communicators", {"cpu": Integers})
    group = GroupCoordinator([[0]], 0, device_type="cpu")
    assert group.all_reduce(X.short()).dtype == torch.int16
    with pytest.raises(TypeError, match=r"cannot sum torch.float32: cast it to one of int16"):
        group.all_reduce(X)
    group.destroy()
