"""What an operation raises that cannot finish: it names the operation, the group, the rank and the limit."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Concatenate, Literal, ParamSpec, Protocol, TypeVar

import torch
import torch.distributed as dist

Setting = Literal["timeout", "cpu_timeout"]

# What gloo, NCCL, torch's stores and torch's waits say of a time that is over.
_TIMED_OUT = ("timed out", "wait timeout", "operation timeout", "timeout after")

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")
_Owner = TypeVar("_Owner", bound="Scoped")


@dataclass(frozen=True)
class GroupScope:
    """Where an operation runs: the group, this rank (global), and the limit that ends it.

    `setting` is the one that governs it; `limit` None stands for the backend's own limit.
    """

    group: str
    rank: int
    setting: Setting
    limit: timedelta | None

    @property
    def limit_text(self) -> str:
        """Return the limit as one reads it: `2 s (cpu_timeout)`."""
        limit = "the backend's own limit" if self.limit is None else f"{self.limit.total_seconds():g} s"
        return f"{limit} ({self.setting})"


class CommunicationError(RuntimeError):
    """Raised when an operation of a group failed: a rank has ended, has given up or did something else.

    The group is of no use afterwards. `reason` is what the backend said.
    """

    def __init__(self, operation: str, scope: GroupScope, reason: str) -> None:
        super().__init__(operation, scope, reason)
        self.operation, self.scope, self.reason = operation, scope, reason

    def __str__(self) -> str:
        scope = self.scope
        return (
            f"{self.operation} in group {scope.group!r} failed on rank {scope.rank}, limit "
            f"{scope.limit_text}: {self.reason}; where another rank has ended or given up, destroy the "
            "coordinator and make a new one"
        )

    def during(self, operation: str) -> CommunicationError:
        """Return the same error of the operation that the caller knows."""
        return type(self)(operation, self.scope, self.reason)


class CommunicationTimeoutError(CommunicationError, TimeoutError):
    """Raised when an operation did not finish within its limit: a rank is absent or did something else."""

    def __str__(self) -> str:
        scope = self.scope
        return (
            f"{self.operation} in group {scope.group!r} on rank {scope.rank} did not finish within "
            f"{scope.limit_text}: a rank did not come, or did something else; destroy the coordinator and "
            f"make a new one, or set a longer limit ({self.reason})"
        )


class Scoped(Protocol):
    """What has operations that can fail."""

    @property
    def is_destroyed(self) -> bool: ...
    def scope(self, setting: Setting) -> GroupScope: ...


def limited_by(
    setting: Setting,
) -> Callable[
    [Callable[Concatenate[_Owner, _Arguments], _Result]], Callable[Concatenate[_Owner, _Arguments], _Result]
]:
    """Mark a method as an operation that ends at `setting` at the latest, and that names itself in errors."""

    def decorate(
        method: Callable[Concatenate[_Owner, _Arguments], _Result],
    ) -> Callable[Concatenate[_Owner, _Arguments], _Result]:
        operation = method.__name__

        @functools.wraps(method)
        def call(self: _Owner, /, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
            if torch.compiler.is_compiling():
                return method(self, *args, **kwargs)
            try:
                return method(self, *args, **kwargs)
            except CommunicationError as error:
                raise error.during(operation) from error.__cause__
            except RuntimeError as error:
                if self.is_destroyed or not _is_of_backend(error):
                    raise
                raise named(error, operation, self.scope(setting)) from error

        return call

    return decorate


@contextmanager
def naming(operation: str, scope: GroupScope | None) -> Iterator[None]:
    """Let errors of the backend name the operation; without a scope they stay as they are."""
    try:
        yield
    except RuntimeError as error:
        if scope is None or not _is_of_backend(error):
            raise
        raise named(error, operation, scope) from error


def named(error: RuntimeError, operation: str, scope: GroupScope) -> CommunicationError:
    """Return the error to raise in place of the backend's."""
    reason = " ".join(str(error).split())
    timed_out = any(text in reason.lower() for text in _TIMED_OUT)
    return (CommunicationTimeoutError if timed_out else CommunicationError)(operation, scope, reason)


def _is_of_backend(error: RuntimeError) -> bool:
    """Tell torch's errors of communication from other kinds of RuntimeError, such as out of memory."""
    return type(error) is RuntimeError or isinstance(error, dist.DistError)
