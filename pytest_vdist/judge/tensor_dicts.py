"""Dictionaries of tensors and other values: one to send, and what another lacks to be the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from .compare import compare_exact
from .formats import contiguous_copy, dtype_name
from .inputs import movement_input

TensorDict = dict[str, Any]


def tensor_dict_input(
    dtypes: Sequence[torch.dtype], *, rank: int, seed: int, device: torch.device | str = "cpu"
) -> TensorDict:
    """Make a dictionary whose every value tells rank and seed, in an order of keys that is not sorted.

    It holds a tensor of each dtype on `device`, others on the CPU, empty and 0-d tensors on both, None, and
    nested Python values. It is a pure function of its arguments: any process can make it again.
    """

    def moved(shape: Sequence[int], dtype: torch.dtype, where: torch.device | str, salt: int) -> torch.Tensor:
        return movement_input(shape, dtype, rank=rank, seed=1000 * seed + salt).to(where)

    result: TensorDict = {"zulu": moved((3, 5), torch.float32, device, 0), "none": None, "rank": rank}
    for salt, dtype in enumerate(dtypes, start=1):
        result[f"{dtype_name(dtype)} {seed}"] = moved((2 + rank, 7), dtype, device, salt)
    return result | {
        "on the CPU": moved((4, 3, 2), torch.int64, "cpu", 101),
        "empty": moved((0,), torch.float32, device, 102),
        "empty of rows": moved((3, 0, 2), torch.int32, "cpu", 103),
        "scalar": moved((), torch.float32, device, 104),
        "values": {"b": [seed, None, (rank, "text")], "a": {"empty": {}, "flag": rank % 2 == 0}},
        "text": f"rank {rank} · seed {seed}",
        "alpha": moved((1031,), torch.uint8, device, 105),
        "last on the CPU": moved((1,), torch.float64, "cpu", 106),
    }


def tensor_dict_differences(got: Any, want: Any) -> list[str]:
    """Say where `got` is not what `want` is: keys and their order, types, values, and tensors bit by bit.

    Tensors must agree in shape, dtype and device type; strides may differ. Empty for equal dictionaries.
    """
    return list(_differences(got, want, ""))


def _differences(got: Any, want: Any, path: str) -> Iterator[str]:
    place = path or "the dictionary"
    if isinstance(want, torch.Tensor) and isinstance(got, torch.Tensor):
        yield from (f"{place}: {problem}" for problem in _tensor_differences(got, want))
    elif type(got) is not type(want):
        yield f"{place}: got {_short(got)}, want {_short(want)}"
    elif isinstance(want, dict):
        if list(got) != list(want):
            yield f"{place}: got the keys {list(got)}, want {list(want)}"
            return
        for key in want:
            yield from _differences(got[key], want[key], f"{path}[{key!r}]")
    elif got != want:
        yield f"{place}: got {_short(got)}, want {_short(want)}"


def _tensor_differences(got: torch.Tensor, want: torch.Tensor) -> Iterator[str]:
    forms = [
        ("shape", tuple(got.shape), tuple(want.shape)),
        ("dtype", dtype_name(got.dtype), dtype_name(want.dtype)),
        ("device type", got.device.type, want.device.type),
    ]
    wrong = [f"got {name} {has}, want {wants}" for name, has, wants in forms if has != wants]
    yield from wrong
    if not wrong:
        mismatch = compare_exact(contiguous_copy(got).cpu(), contiguous_copy(want).cpu())
        if mismatch is not None:
            yield str(mismatch)


def _short(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 80 else text[:77] + '...'}"
