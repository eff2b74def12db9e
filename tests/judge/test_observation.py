from __future__ import annotations

import pickle

import pytest
import torch

from pytest_vdist.judge import guard, observe, same_bits

VALUES = torch.arange(6.0).reshape(2, 3)


def test_an_output_is_kept_as_a_contiguous_copy() -> None:
    output = VALUES.t()
    seen = observe(output, [guard(VALUES, "strided")])
    output.add_(0)
    assert seen.value is not None
    assert seen.value.is_contiguous()
    assert same_bits(seen.value, output)
    assert seen.value.data_ptr() != output.data_ptr()
    assert (seen.shape, seen.dtype, seen.device_type) == ((3, 2), torch.float32, "cpu")
    assert seen.input_device_type == "cpu"
    assert (seen.input_intact, seen.canaries_intact, seen.aliases_input) == (True, True, False)


def test_none_is_an_output_too() -> None:
    seen = observe(None, [guard(VALUES, "contiguous")])
    assert (seen.value, seen.shape, seen.dtype, seen.device_type) == (None, None, None, None)
    assert not seen.aliases_input


def test_a_changed_input_a_broken_canary_and_an_alias_are_seen() -> None:
    first, second = guard(VALUES, "contiguous"), guard(VALUES, "strided")
    first.tensor[0, 0] = 9.0
    second.memory[0] = 0
    seen = observe(second.tensor[0], [first, second])
    assert (seen.input_intact, seen.canaries_intact, seen.aliases_input) == (False, False, True)


def test_an_operation_without_inputs_has_no_input_device() -> None:
    assert observe(VALUES).input_device_type is None


def test_observations_travel() -> None:
    seen = observe(VALUES, [guard(VALUES, "contiguous")])
    again = pickle.loads(pickle.dumps(seen))
    assert same_bits(again.value, VALUES)
    assert again.shape == (2, 3)


def test_an_output_that_is_no_tensor_is_refused() -> None:
    with pytest.raises(TypeError, match="gave a list, not a tensor or None"):
        observe([VALUES])  # type: ignore[arg-type]
