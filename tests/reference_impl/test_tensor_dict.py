from __future__ import annotations

import gc
import weakref
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from pytest_vdist.reference_impl.tensor_dict import Slicing, TensorMetadata, places, split


@dataclass
class Halves:
    """The second rank of an all-gather group of two."""

    world_size: int = 2
    rank_in_group: int = 1

    def all_gather(self, input_: torch.Tensor, dim: int = -1) -> torch.Tensor:
        raise AssertionError("splitting gathers nothing")


def test_metadata_takes_the_place_of_tensors_and_all_else_stays() -> None:
    tensor_dict: dict[Any, Any] = {
        "b": torch.ones(2, 3),
        "a": None,
        "n": {"z": 1, "t": torch.empty(0, dtype=torch.int16)},
        5: "x",
    }
    skeleton, tensors = split(tensor_dict, "cpu", Slicing())
    assert skeleton == {
        "b": TensorMetadata(True, torch.float32, (2, 3)),
        "a": None,
        "n": {"z": 1, "t": TensorMetadata(True, torch.int16, (0,))},
        5: "x",
    }
    assert list(skeleton) == ["b", "a", "n", 5]
    assert list(skeleton["n"]) == ["z", "t"]
    assert [tensor.data_ptr() for _, tensor in tensors] == [
        tensor_dict["b"].data_ptr(),
        tensor_dict["n"]["t"].data_ptr(),
    ]


def test_the_dictionary_of_the_caller_is_left_alone() -> None:
    inner = {"t": torch.ones(1)}
    split({"n": inner}, "cpu", Slicing())
    assert isinstance(inner["t"], torch.Tensor)


def test_tensors_end_with_their_dictionary() -> None:
    """Nothing waits for Python to look for cycles before it lets go of them."""
    tensor = torch.ones(2)
    end = weakref.ref(tensor)
    described = split({"t": tensor, "nested": {"t": tensor}}, "cpu", Slicing())
    gc.disable()
    try:
        del tensor, described
        assert end() is None
    finally:
        gc.enable()


def test_places_come_in_the_order_of_the_tensors() -> None:
    tensor_dict = {"n": {"x": torch.ones(1), "m": {"y": torch.ones(2)}}, "z": torch.ones(3)}
    skeleton, tensors = split(tensor_dict, "cpu", Slicing())
    assert [key for _, key, _ in places(skeleton)] == ["x", "y", "z"]
    assert [metadata for _, _, metadata in places(skeleton)] == [metadata for metadata, _ in tensors]


def test_a_tensor_that_divides_is_sent_as_the_slice_of_this_rank() -> None:
    _, [(metadata, _)] = split({"x": torch.ones(2, 3)}, "cpu", Slicing(Halves()))
    assert metadata == TensorMetadata(True, torch.float32, (2, 3), slices=2, slice_index=1)
    assert metadata.numel == 3


@pytest.mark.parametrize("shape", [(3,), (0, 4), ()])
def test_a_tensor_that_does_not_divide_or_is_empty_is_sent_whole(shape: tuple[int, ...]) -> None:
    _, [(metadata, _)] = split({"x": torch.ones(shape)}, "cpu", Slicing(Halves()))
    assert metadata.slices == 1


def test_a_group_of_one_sends_whole_tensors() -> None:
    _, [(metadata, _)] = split({"x": torch.ones(2)}, "cpu", Slicing(Halves(1, 0)))
    assert metadata.slices == 1


def test_an_override_by_key_sends_a_tensor_whole_that_divides() -> None:
    _, [(own, _), (shared, _)] = split(
        {"own": torch.ones(4), "shared": torch.ones(4)}, "cpu", Slicing(Halves(), {"own": False})
    )
    assert (own.slices, shared.slices) == (1, 2)


def test_an_override_cannot_slice_what_does_not_divide() -> None:
    with pytest.raises(ValueError, match=r"all_gather_tensors\['x'\] is True, but .* world size 2"):
        split({"x": torch.ones(3)}, "cpu", Slicing(Halves(), {"x": True}))


def test_tensors_that_are_not_on_the_device_of_the_group_go_whole() -> None:
    skeleton, _ = split(
        {"host": torch.ones(4), "device": torch.ones(4, device="meta")}, "meta", Slicing(Halves())
    )
    assert skeleton["host"] == TensorMetadata(True, torch.float32, (4,))
    assert skeleton["device"] == TensorMetadata(False, torch.float32, (4,), slices=2, slice_index=1)


@pytest.mark.parametrize("value", [None, [("a", 1)], torch.ones(1)])
def test_what_is_no_dictionary_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="a tensor dict is a dict, not"):
        split(value, "cpu", Slicing())


def test_a_tensor_on_a_foreign_device_is_refused_by_key() -> None:
    with pytest.raises(ValueError, match="tensor 'x' is on meta"):
        split({"n": 1, "x": torch.empty(1, device="meta")}, "cpu", Slicing())


def test_a_sparse_tensor_is_refused_by_key() -> None:
    with pytest.raises(TypeError, match=r"tensor 'x' of the tensor dict is torch.sparse_coo"):
        split({"x": torch.eye(2).to_sparse()}, "cpu", Slicing())
