"""Checks of arguments, made on every rank before any traffic so that a mistake hangs nobody."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .wire import obstacle_to_moving


@dataclass(frozen=True)
class Arguments:
    """The checks of one group; every error names the group."""

    group: str
    world_size: int
    rank_in_group: int
    device: torch.device

    def rank(self, value: int, name: str) -> int:
        """Return a rank within the group. Raises ValueError for one outside it, negative ones included."""
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name}={value!r} of group {self.group!r}: give a rank within the group, an int")
        if not 0 <= value < self.world_size:
            raise ValueError(
                f"{name}={value} is not a rank of group {self.group!r}: its ranks within the group are "
                f"0 to {self.world_size - 1} (world size {self.world_size}), whatever their global ranks are"
            )
        return value

    def peer(self, value: int, name: str) -> int:
        """Return another rank within the group. Raises ValueError for this rank itself too."""
        if self.rank(value, name) == self.rank_in_group:
            raise ValueError(
                f"{name}={value} is this rank itself in group {self.group!r} (world size {self.world_size}): "
                "a message goes to another rank"
            )
        return value

    def tensor(self, value: torch.Tensor, operation: str) -> torch.Tensor:
        """Return a dense tensor on the device of the group. Raises TypeError or ValueError for another."""
        if not isinstance(value, torch.Tensor):
            raise TypeError(f"{operation} of group {self.group!r} takes a tensor, not {type(value).__name__}")
        obstacle = obstacle_to_moving(value)
        if obstacle is not None:
            raise TypeError(f"the tensor for {operation} of group {self.group!r} is {obstacle}")
        if value.device != self.device and value.device.type != self.device.type:
            raise ValueError(
                f"{operation} of group {self.group!r} got a tensor on {value.device}, and the group works on "
                f"{self.device}: move it there first"
            )
        return value

    def dim(self, tensor: torch.Tensor, dim: int, operation: str) -> int:
        """Return `dim` made non-negative. Raises ValueError where `tensor` has no such dimension."""
        if tensor.dim() == 0:
            raise ValueError(
                f"{operation} of group {self.group!r} got a 0-d tensor, which has no dimension to join or "
                "split; pass tensor.unsqueeze(0)"
            )
        if not -tensor.dim() <= dim < tensor.dim():
            raise ValueError(
                f"dim={dim} of {operation} of group {self.group!r}: a tensor of shape {tuple(tensor.shape)} "
                f"has dimensions {-tensor.dim()} to {tensor.dim() - 1}"
            )
        return dim % tensor.dim()

    def divisible(self, tensor: torch.Tensor, dim: int, operation: str) -> None:
        """Raise ValueError unless `tensor` splits along `dim` in world_size equal chunks."""
        size = tensor.shape[self.dim(tensor, dim, operation)]
        if size % self.world_size:
            raise ValueError(
                f"{operation} of group {self.group!r}: size {size} of dim {dim} in shape "
                f"{tuple(tensor.shape)} does not divide by the world size {self.world_size}; pad it, or use "
                "reduce_scatterv with sizes"
            )

    def sizes(self, sizes: Sequence[int], operation: str) -> list[int]:
        """Return one size for each rank. Raises ValueError for another number of them, or a negative one."""
        if len(sizes) != self.world_size or any(size < 0 for size in sizes):
            raise ValueError(
                f"sizes={list(sizes)} of {operation} of group {self.group!r}: give one size of 0 or more for "
                f"each of its {self.world_size} ranks"
            )
        return list(sizes)

    def own_size(self, tensor: torch.Tensor, dim: int, sizes: Sequence[int], operation: str) -> None:
        """Raise ValueError unless `tensor` is as long along `dim` as `sizes` says for this rank."""
        size = tensor.shape[self.dim(tensor, dim, operation)]
        if size != sizes[self.rank_in_group]:
            raise ValueError(
                f"sizes={list(sizes)} of {operation} of group {self.group!r} gives rank {self.rank_in_group} "
                f"{sizes[self.rank_in_group]}, but its tensor of shape {tuple(tensor.shape)} has {size} in "
                f"dim {dim}"
            )

    def total_size(self, tensor: torch.Tensor, dim: int, sizes: Sequence[int], operation: str) -> None:
        """Raise ValueError unless `sizes` add up to the length of `tensor` along `dim`."""
        size = tensor.shape[self.dim(tensor, dim, operation)]
        if size != sum(sizes):
            raise ValueError(
                f"sizes={list(sizes)} of {operation} of group {self.group!r} add up to {sum(sizes)}, but dim "
                f"{dim} of a tensor of shape {tuple(tensor.shape)} has {size}"
            )

    def gathered_sizes(
        self, layouts: Sequence[Sequence[tuple[tuple[int, ...], torch.dtype]]], dim: int
    ) -> list[list[int]]:
        """Return, for each tensor of an all_gatherv, its length along `dim` on every rank.

        `layouts` holds, for each rank, the shape and dtype of each of its tensors. Raises ValueError, on all
        ranks alike, where the tensors cannot be joined.
        """
        if len({len(layout) for layout in layouts}) != 1:
            raise ValueError(
                f"all_gatherv of group {self.group!r}: the ranks pass {[len(layout) for layout in layouts]} "
                "tensors; pass lists of one length"
            )
        all_sizes = []
        for of_ranks in zip(*layouts, strict=True):
            if (
                len({_all_but(dim, shape) for shape, _ in of_ranks}) != 1
                or len({dtype for _, dtype in of_ranks}) != 1
            ):
                raise ValueError(
                    f"all_gatherv of group {self.group!r} along dim {dim}: the tensors of its ranks are "
                    f"{of_ranks} (shape and dtype by rank); they may differ in dim {dim} only"
                )
            all_sizes.append([shape[dim] for shape, _ in of_ranks])
        return all_sizes

    def scatter_output(
        self, input_: torch.Tensor, output: torch.Tensor, dim: int, sizes: Sequence[int] | None
    ) -> None:
        """Raise ValueError unless `output` can take this rank's chunk of `input_`."""
        shape = list(input_.shape)
        shape[dim] = shape[dim] // self.world_size if sizes is None else sizes[self.rank_in_group]
        if list(output.shape) != shape or output.dtype != input_.dtype:
            raise ValueError(
                f"reduce_scatterv_into_output of group {self.group!r}: output has shape "
                f"{tuple(output.shape)} and {output.dtype}, but this rank's chunk has shape {tuple(shape)} "
                f"and {input_.dtype}"
            )

    def tensor_dict(self, value: dict[str, Any] | None) -> dict[str, Any]:
        """Return a dictionary. Raises TypeError for anything else."""
        if not isinstance(value, dict):
            raise TypeError(
                f"group {self.group!r} takes a dict of tensors and other values, not {type(value).__name__}"
            )
        return value


def _all_but(dim: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    dim %= len(shape)
    return len(shape), *shape[:dim], *shape[dim + 1 :]
