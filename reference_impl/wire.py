"""How tensors travel: flat, contiguous, in a dtype that every process-group backend takes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

# gloo, NCCL and XCCL take all of these, for sums too. Other dtypes move as bytes.
COMMON_DTYPES = frozenset(
    {
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int32,
        torch.int8,
        torch.uint8,
    }
)
# A complex sum is the sum of its real and of its imaginary parts.
COMPLEX_DTYPES = frozenset({torch.complex128, torch.complex64, torch.complex32})
REDUCTION_DTYPES = COMMON_DTYPES | COMPLEX_DTYPES
# torch cannot copy some small formats, such as float4_e2m1fn_x2: their bits are copied as these, by size.
_COPY_DTYPES = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def as_wire(tensor: torch.Tensor) -> torch.Tensor:
    """View `tensor`, of any shape, strides and dtype, as a flat one to move; a copy unless it `is_plain`."""
    flat = compact(tensor)
    if flat.dim() != 1 or flat.stride(0) != 1:
        # Not view(-1): it keeps any stride of a tensor of one element, which torch views as no other dtype.
        flat = flat.as_strided((tensor.numel(),), (1,))
    return flat if flat.dtype in COMMON_DTYPES else flat.view(torch.uint8)


def from_wire(flat: torch.Tensor, dtype: torch.dtype, shape: Sequence[int]) -> torch.Tensor:
    """View what `as_wire` made as a tensor of `dtype` and `shape` again."""
    if flat.dtype == dtype:
        return flat if len(shape) == 1 else flat.view(shape)
    return flat.view(dtype).view(shape)


def wire_numel(dtype: torch.dtype, shape: Sequence[int]) -> int:
    """Count the elements that `as_wire` makes of a tensor of `dtype` and `shape`."""
    return math.prod(shape) * (1 if dtype in COMMON_DTYPES else dtype.itemsize)


def obstacle_to_moving(tensor: torch.Tensor) -> str | None:
    """Say what a tensor is whose values are not all in its elements: sparse or quantized. None for others."""
    if tensor.layout == torch.strided and not tensor.is_quantized:
        return None
    kind = "quantized" if tensor.is_quantized else str(tensor.layout)
    return f"{kind}, and only dense tensors move: send its parts, such as values and scales"


def is_plain(tensor: torch.Tensor) -> bool:
    """Tell whether `as_wire` shares memory with `tensor`, so that writing to the one writes to the other."""
    return tensor.is_contiguous() and not tensor.is_conj() and not tensor.is_neg()


def fresh(tensor: torch.Tensor) -> torch.Tensor:
    """Copy to a contiguous tensor of the same shape that shares nothing with `tensor`, autograd included."""
    if _is_cloned_rightly(tensor):
        return tensor.clone(memory_format=torch.contiguous_format)
    return _copyable(tensor).clone(memory_format=torch.contiguous_format).view(tensor.dtype)


def compact(tensor: torch.Tensor) -> torch.Tensor:
    """Return `tensor` if it is contiguous, else a contiguous copy."""
    # A negated view may be contiguous, and compilers cannot ask whether it is one.
    if _is_cloned_rightly(tensor) and not torch.compiler.is_compiling() and not tensor.is_neg():
        return tensor.contiguous()
    return _copyable(tensor).contiguous().view(tensor.dtype)


def sum_view(tensor: torch.Tensor) -> torch.Tensor:
    """View a contiguous tensor as real numbers, which every backend sums."""
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def require_reducible(dtype: torch.dtype, allowed: frozenset[torch.dtype], operation: str) -> None:
    """Raise TypeError for a dtype that this communicator cannot sum; nothing has been sent then."""
    if dtype not in allowed:
        names = ", ".join(sorted(str(name).removeprefix("torch.") for name in allowed))
        hint = (
            "; cast to uint8 or int32 to count, or to uint8 and compare with 0 for any()"
            if dtype == torch.bool
            else ""
        )
        raise TypeError(f"{operation} cannot sum {dtype}: cast it to one of {names}{hint}")


def write_back(destination: torch.Tensor, values: torch.Tensor) -> None:
    """Copy `values` into a view of any strides, and to no element outside it.

    Raises ValueError where elements of `destination` share memory (an expanded tensor) and the values differ
    there.
    """
    target, source = destination.detach(), values
    if not destination.is_complex():
        target, source = target.view(_copy_dtype(target.dtype)), source.view(_copy_dtype(source.dtype))
    for dim, (size, stride) in enumerate(zip(target.shape, target.stride(), strict=True)):
        if stride == 0 and size > 1:
            target, source = target.narrow(dim, 0, 1), source.narrow(dim, 0, 1)
    target.copy_(source)
    if _may_overlap(destination) and not _same_bytes(destination, values):
        raise ValueError(
            f"elements of the destination of shape {tuple(destination.shape)} and strides "
            f"{destination.stride()} share memory and cannot hold the values received; pass a tensor that is "
            "not expanded"
        )


def _is_cloned_rightly(tensor: torch.Tensor) -> bool:
    """Tell whether torch clones a tensor rightly without further ado, which saves half the time of a call."""
    return tensor.dtype in COMMON_DTYPES and not tensor.requires_grad


def _copyable(tensor: torch.Tensor) -> torch.Tensor:
    """View a tensor of any strides in a dtype that torch can copy, with no conjugation left to do."""
    resolved = tensor.detach().resolve_conj().resolve_neg()
    return resolved.view(_copy_dtype(resolved.dtype))


def _copy_dtype(dtype: torch.dtype) -> torch.dtype:
    if dtype in REDUCTION_DTYPES:
        return dtype
    return _COPY_DTYPES[dtype.itemsize]


def _may_overlap(tensor: torch.Tensor) -> bool:
    """Tell whether two elements may share memory: some stride does not step over all smaller ones."""
    reach = 0
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1 and stride <= reach:
            return True
        reach += stride * (size - 1)
    return False


def _same_bytes(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.equal(as_wire(one).view(torch.uint8), as_wire(other).view(torch.uint8))
