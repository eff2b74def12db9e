"""Number formats of torch dtypes, and tensors seen as bits."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class NumberFormat:
    """A binary floating-point format.

    `precision` counts the bits of the significand with the hidden one; `e_min` and `e_max` are the
    exponents of the smallest normal number and of the largest finite one.
    """

    name: str
    dtype: torch.dtype
    bits: int
    precision: int
    e_min: int
    e_max: int
    max: float

    @property
    def unit_roundoff(self) -> float:
        """Largest relative error of one rounding to nearest, 2^-p."""
        return math.ldexp(1.0, -self.precision)

    @property
    def smallest_subnormal(self) -> float:
        return math.ldexp(1.0, self.e_min - self.precision + 1)

    @property
    def mantissa_bits(self) -> int:
        """Stored bits of the significand."""
        return self.precision - 1

    @property
    def exponent_bias(self) -> int:
        return 1 - self.e_min

    @property
    def exponent_mask(self) -> int:
        """The exponent field of an element, as an integer of `bits` bits."""
        return ((1 << (self.bits - self.precision)) - 1) << self.mantissa_bits


@dataclass(frozen=True)
class IntegerFormat:
    """A two's complement or unsigned integer format; bool is one unsigned bit."""

    name: str
    dtype: torch.dtype
    bits: int
    signed: bool

    @property
    def min(self) -> int:
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def max(self) -> int:
        return (1 << (self.bits - int(self.signed))) - 1


def _ieee(name: str, dtype: torch.dtype, bits: int, precision: int) -> NumberFormat:
    e_max = (1 << (bits - precision - 1)) - 1
    largest = (2.0 - math.ldexp(1.0, 1 - precision)) * math.ldexp(1.0, e_max)
    return NumberFormat(name, dtype, bits, precision, e_min=1 - e_max, e_max=e_max, max=largest)


_FLOATS = (
    _ieee("fp64", torch.float64, 64, 53),
    _ieee("fp32", torch.float32, 32, 24),
    _ieee("fp16", torch.float16, 16, 11),
    _ieee("bf16", torch.bfloat16, 16, 8),
    _ieee("e5m2", torch.float8_e5m2, 8, 3),
    # All bits set is the only NaN and nothing is infinite, so the largest exponent holds numbers:
    # https://arxiv.org/abs/2209.05433
    NumberFormat("e4m3fn", torch.float8_e4m3fn, bits=8, precision=4, e_min=-6, e_max=8, max=448.0),
)
_WIDTHS = (8, 16, 32, 64)
_INTEGERS = (
    IntegerFormat("bool", torch.bool, 1, signed=False),
    *(IntegerFormat(f"uint{bits}", getattr(torch, f"uint{bits}"), bits, signed=False) for bits in _WIDTHS),
    *(IntegerFormat(f"int{bits}", getattr(torch, f"int{bits}"), bits, signed=True) for bits in _WIDTHS),
)
_FORMATS: dict[torch.dtype, NumberFormat | IntegerFormat] = {
    **{each.dtype: each for each in _FLOATS},
    **{each.dtype: each for each in _INTEGERS},
}


def format_of(dtype: torch.dtype) -> NumberFormat | IntegerFormat:
    """Return the format of a dtype. Raises TypeError for one without a known format (complex, quantised)."""
    try:
        return _FORMATS[dtype]
    except KeyError:
        known = ", ".join(sorted(dtype_name(each) for each in _FORMATS))
        raise TypeError(f"no number format is known for {dtype}; known are {known}") from None


def float_format_of(dtype: torch.dtype) -> NumberFormat:
    """Return the format of a floating-point dtype. Raises TypeError for any other dtype."""
    found = format_of(dtype)
    if not isinstance(found, NumberFormat):
        raise TypeError(f"{dtype} is not a floating-point dtype")
    return found


def dtype_name(dtype: torch.dtype) -> str:
    """`"bfloat16"` for `torch.bfloat16`."""
    return str(dtype).removeprefix("torch.")


def integer_of_size(itemsize: int) -> torch.dtype:
    """Return the integer dtype with elements of 1, 2, 4 or 8 bytes that has the most operations in torch."""
    return {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[itemsize]


def bit_view(tensor: torch.Tensor) -> torch.Tensor:
    """View the same memory as integers of the element's size; complex128 gets a last dimension of two int64.

    Copies between such views keep every bit, NaN payloads too, and work for dtypes that lack arithmetic.
    """
    plain = tensor.detach().resolve_conj().resolve_neg()
    if plain.dtype == torch.complex128:
        plain = torch.view_as_real(plain)
    return plain.view(integer_of_size(plain.element_size()))


def contiguous_copy(tensor: torch.Tensor) -> torch.Tensor:
    """Return a new contiguous tensor with the same bits, shape, dtype and device."""
    copied = bit_view(tensor).clone(memory_format=torch.contiguous_format)
    return copied.reshape(-1).view(tensor.dtype).reshape(tensor.shape)


def raw_bytes(tensor: torch.Tensor) -> torch.Tensor:
    """Return the elements in index order as a new 1-D uint8 tensor on the CPU."""
    return contiguous_copy(tensor).cpu().reshape(-1).view(torch.uint8)


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether shape, dtype and every bit agree; strides and device may differ."""
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(raw_bytes(a), raw_bytes(b))
