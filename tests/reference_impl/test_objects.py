from __future__ import annotations

from typing import Any

import pytest
import torch

from pytest_vdist.reference_impl.objects import Refusal, dump, header, load


@pytest.mark.parametrize("obj", [None, 0, "text", b"", {"a": [1, 2]}, torch.float16, b"x" * 100_000])
def test_an_object_survives(obj: object) -> None:
    data = dump(obj)
    assert data.dtype == torch.uint8
    assert data.dim() == 1
    assert load(data) == obj


def test_what_does_not_pickle_is_a_type_error_naming_its_type() -> None:
    with pytest.raises(TypeError, match="cannot send an object of type function: it does not pickle"):
        dump(lambda: None)


@pytest.mark.parametrize("error", [TypeError, ValueError])
def test_a_refusal_raises_at_the_receiver_what_the_sender_met(error: Any) -> None:
    with pytest.raises(error, match="rank 3 of the group could not send its message: no dict"):
        load(dump(Refusal(3, error, "no dict")))


def test_objects_travel_on_the_cpu_whatever_the_default_device_is() -> None:
    with torch.device("meta"):
        data = dump([1, 2])
        assert header(data).tolist() == [data.numel()]
        assert load(data) == [1, 2]
