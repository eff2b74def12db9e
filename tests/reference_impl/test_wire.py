from __future__ import annotations

import pytest
import torch

from pytest_vdist.reference_impl.wire import (
    REDUCTION_DTYPES,
    as_wire,
    compact,
    fresh,
    from_wire,
    is_plain,
    obstacle_to_moving,
    require_reducible,
    wire_numel,
    write_back,
)

DTYPES = sorted(
    {
        dtype
        for dtype in vars(torch).values()
        if isinstance(dtype, torch.dtype) and not str(dtype).startswith(("torch.qint", "torch.quint"))
    }
    - {torch.complex32},  # making one warns that it is experimental
    key=str,
)


def of_dtype(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    """Make a tensor with the same bytes for every dtype of one size."""
    numel = torch.Size(shape).numel()
    values = torch.arange(numel * dtype.itemsize, dtype=torch.int64) % (2 if dtype == torch.bool else 100)
    return values.to(torch.uint8).view(dtype).view(shape)


def same_bytes(one: torch.Tensor, other: torch.Tensor) -> bool:
    return as_wire(one).view(torch.uint8).tolist() == as_wire(other).view(torch.uint8).tolist()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (1,), (3, 4), (0, 3), (2, 0)])
def test_every_dtype_and_shape_survives_the_wire(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = of_dtype(dtype, *shape)
    flat = as_wire(tensor)
    assert flat.dim() == 1
    assert flat.numel() == wire_numel(dtype, shape)
    back = from_wire(flat, dtype, shape)
    assert back.dtype == dtype
    assert back.shape == torch.Size(shape)
    assert same_bytes(back, tensor)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_tensor_of_one_element_survives_the_wire_whatever_its_stride(dtype: torch.dtype) -> None:
    tensor = of_dtype(dtype, 3, 2)[1:2, ::2]
    assert tensor.stride() == (2, 2)
    assert same_bytes(from_wire(as_wire(tensor), dtype, (1, 1)), of_dtype(dtype, 3, 2)[1, :1])
    row = tensor[0]
    assert row.stride() == (2,)
    assert same_bytes(from_wire(as_wire(row), dtype, (1,)), of_dtype(dtype, 3, 2)[1, :1])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_wire_carries_the_values_of_a_view_and_not_its_memory(dtype: torch.dtype) -> None:
    transposed = of_dtype(dtype, 3, 4).t()
    expected = [of_dtype(dtype, 3, 4)[row, column : column + 1] for column in range(4) for row in range(3)]
    bytes_of = [as_wire(element).view(torch.uint8) for element in expected]
    assert as_wire(transposed).view(torch.uint8).tolist() == torch.cat(bytes_of).tolist()
    assert compact(transposed).is_contiguous()
    assert fresh(transposed).is_contiguous()


def test_a_plain_tensor_shares_its_memory_with_the_wire() -> None:
    tensor = torch.zeros(2, 3)
    as_wire(tensor)[5] = 7
    assert is_plain(tensor)
    assert tensor[1, 2] == 7


@pytest.mark.parametrize(
    "view",
    [
        torch.zeros(2, 6)[:, ::2],
        torch.zeros(2, 3).t(),
        torch.zeros(3).expand(2, 3),
        torch.zeros(2, dtype=torch.complex64).conj(),
    ],
)
def test_other_views_are_copied_to_the_wire(view: torch.Tensor) -> None:
    assert not is_plain(view)
    assert as_wire(view).data_ptr() != view.data_ptr()


def test_conjugation_and_negation_are_done_before_sending() -> None:
    tensor = torch.tensor([1 + 2j, 3 - 4j])
    assert from_wire(as_wire(tensor.conj()), tensor.dtype, (2,)).tolist() == [1 - 2j, 3 + 4j]
    assert as_wire(tensor.conj().imag).tolist() == [-2.0, 4.0]
    assert fresh(tensor.conj().imag).tolist() == [-2.0, 4.0]
    assert not fresh(tensor.conj().imag).is_neg()


def test_a_fresh_copy_shares_neither_memory_nor_gradients() -> None:
    tensor = torch.ones(3, requires_grad=True)
    copy = fresh(tensor)
    copy.add_(1)
    assert not copy.requires_grad
    assert tensor.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_writing_back_touches_the_view_and_nothing_else(dtype: torch.dtype) -> None:
    memory = of_dtype(dtype, 4, 6)
    before = memory.clone() if dtype in REDUCTION_DTYPES else fresh(memory)
    values = of_dtype(dtype, 8, 3)[4:]
    write_back(memory[:, ::2], values)
    assert same_bytes(memory[:, ::2], values)
    assert same_bytes(memory[:, 1::2], before[:, 1::2])


def test_writing_back_through_a_conjugate_view_keeps_the_conjugate() -> None:
    memory = torch.zeros(2, dtype=torch.complex64)
    write_back(memory.conj(), torch.tensor([1 + 1j, 2 - 2j]))
    assert memory.tolist() == [1 - 1j, 2 + 2j]


def test_writing_back_to_a_parameter_needs_no_gradient() -> None:
    parameter = torch.nn.Parameter(torch.zeros(2, 4))
    write_back(parameter[:, ::2], torch.ones(2, 2))
    assert parameter.tolist() == [[1, 0, 1, 0], [1, 0, 1, 0]]


def test_an_expanded_destination_takes_values_that_agree() -> None:
    memory = torch.zeros(3)
    write_back(memory.expand(2, 3), torch.tensor([1.0, float("nan"), 3.0]).expand(2, 3).contiguous())
    assert memory[0] == 1
    assert memory[1].isnan()


@pytest.mark.parametrize(
    "destination", [torch.zeros(3).expand(2, 3), torch.zeros(4).as_strided((2, 3), (1, 1))]
)
def test_a_destination_whose_elements_share_memory_refuses_values_that_differ(
    destination: torch.Tensor,
) -> None:
    with pytest.raises(ValueError, match="share memory and cannot hold the values received"):
        write_back(destination, torch.arange(6.0).view(2, 3))


@pytest.mark.parametrize("dtype", [torch.bool, torch.int16, torch.uint16, torch.float8_e4m3fn], ids=str)
def test_a_dtype_without_a_sum_is_refused_with_those_that_have_one(dtype: torch.dtype) -> None:
    with pytest.raises(
        TypeError, match=rf"all_reduce cannot sum {dtype}: cast it to one of bfloat16, .*uint8"
    ):
        require_reducible(dtype, REDUCTION_DTYPES, "all_reduce")


def test_a_bool_sum_is_refused_saying_how_to_count() -> None:
    with pytest.raises(TypeError, match="to count"):
        require_reducible(torch.bool, REDUCTION_DTYPES, "all_reduce")


def test_a_sparse_tensor_does_not_move() -> None:
    obstacle = obstacle_to_moving(torch.eye(2).to_sparse())
    assert obstacle is not None
    assert obstacle.startswith("torch.sparse_coo, and only dense tensors move")
    assert obstacle_to_moving(torch.eye(2)) is None
