"""How functions, arguments and results travel between controller and ranks.

Functions of test modules travel by value (closures, lambdas and pytest's rewritten asserts survive);
everything importable travels by reference. Tensors travel as raw bytes and arrive contiguous and detached:
results on the CPU, arguments on the device of the rank if they were on a device.
"""

from __future__ import annotations

import inspect
import io
import pickle
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cloudpickle
import torch

from pytest_vdist.ranks import _compat
from pytest_vdist.ranks.context import current_rank

_OWN_PACKAGE = "pytest_vdist"
_SUITES_PACKAGE = "pytest_vdist.suites"


class CannotTravelError(TypeError):
    """Raised when a function, an argument or a result can't be sent to or from the ranks."""

    __module__ = "pytest_vdist"  # as for the exceptions of failures.py


def dump_body(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
    """Serialise a call for the ranks.

    Raises CannotTravelError naming the variable or argument that can't travel.
    """
    __tracebackhide__ = True
    _send_test_modules_by_value()
    try:
        return _dumps((function, tuple(args), dict(kwargs)))
    except Exception as error:
        message = (
            f"{_describe(function)} can't be sent to the ranks: {_culprit(function, args, kwargs, error)}"
        )
        raise CannotTravelError(message) from None


def load_body(data: bytes) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
    function, args, kwargs = pickle.loads(data)  # noqa: S301 - from our own controller
    return function, args, kwargs


def dump_result(value: Any) -> bytes:
    """Serialise what the function returned in a rank. Raises CannotTravelError naming its type."""
    if inspect.iscoroutine(value):
        name = value.__qualname__
        value.close()  # it has not begun, and must not warn that nobody awaited it
        raise CannotTravelError(
            f"{name} is an async function, of which nothing has run: give a function that runs it, "
            "such as lambda: asyncio.run(body())"
        )
    try:
        return _dumps(value)
    except Exception as error:
        message = (
            f"the function returned a {type(value).__qualname__} that can't be sent to the controller "
            f"({error}); return tensors, numbers, strings or containers of them"
        )
        raise CannotTravelError(message) from None


def load_result(data: bytes) -> Any:
    """Read what a rank returned. Raises CannotTravelError if only ranks can make such an object."""
    __tracebackhide__ = True
    try:
        return pickle.loads(data)  # noqa: S301 - from our own ranks
    except Exception as error:
        message = (
            f"the function returned something that can't be made in the controller "
            f"({type(error).__name__}: {error}); return tensors, numbers, strings or containers of them"
        )
        raise CannotTravelError(message) from None


def dump_message(message: object) -> bytes:
    """Serialise a message; classes of test modules, such as a warning's category, may be among its parts."""
    try:
        return pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    except (pickle.PicklingError, AttributeError, TypeError):
        return _dumps(message)


def load_message(data: bytes) -> Any:
    return pickle.loads(data)  # noqa: S301 - between controller and its ranks


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is torch.Tensor and not obj.is_sparse and not obj.is_quantized:
            return _reduce_tensor(obj)
        if isinstance(obj, types.ModuleType) and obj.__name__ in _sent_by_value:
            state = {name: value for name, value in vars(obj).items() if name not in _OF_THE_IMPORT_SYSTEM}
            return _rebuild_module, (obj.__name__, state)
        if isinstance(obj, types.CodeType):
            return _reduce_code(obj)
        return super().reducer_override(obj)


def _dumps(value: Any) -> bytes:
    buffer = io.BytesIO()
    with _compat.quick_submodule_search():
        _Pickler(buffer, protocol=pickle.HIGHEST_PROTOCOL).dump(value)
    return buffer.getvalue()


def _reduce_code(code: types.CodeType) -> tuple[Callable[..., types.CodeType], tuple[Any, ...]]:
    """Keep the file of the code, which cloudpickle leaves out from 3.1.3 on: stacks and failures name it."""
    rebuild, arguments = cloudpickle.Pickler.dispatch_table[types.CodeType](code)
    return _rebuild_code, (rebuild, arguments, code.co_filename)


def _rebuild_code(
    rebuild: Callable[..., types.CodeType], arguments: tuple[Any, ...], filename: str
) -> types.CodeType:
    return rebuild(*arguments).replace(co_filename=filename)


def _reduce_tensor(tensor: torch.Tensor) -> tuple[Callable[..., torch.Tensor], tuple[Any, ...]]:
    on_device = tensor.device.type not in {"cpu", "meta"}
    values = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    # A contiguous tensor of one element may have any stride, and torch views no such tensor as bytes.
    bytes_of_values: Any = values.as_strided((values.numel(),), (1,)).view(torch.uint8).numpy()
    data = pickle.PickleBuffer(bytes_of_values)
    return _rebuild_tensor, (
        data,
        values.dtype,
        tuple(values.shape),
        on_device and _in_controller(),
        tensor.requires_grad,
    )


def _rebuild_tensor(
    data: bytearray, dtype: torch.dtype, shape: tuple[int, ...], to_device: bool, requires_grad: bool
) -> torch.Tensor:
    flat = torch.frombuffer(data, dtype=dtype) if len(data) else torch.empty(0, dtype=dtype)
    tensor = flat.reshape(shape)
    if to_device:
        tensor = tensor.to(current_rank().device)
    return tensor.requires_grad_() if requires_grad else tensor


def _rebuild_module(name: str, state: dict[str, Any]) -> types.ModuleType:
    module = types.ModuleType(name)
    vars(module).update(state)
    return module


def _in_controller() -> bool:
    return not _IN_RANK


_IN_RANK = False


def enter_rank() -> None:
    """Say that this process is a rank: its tensors go to the controller's CPU."""
    global _IN_RANK  # noqa: PLW0603 - a process is a rank for its whole life
    _IN_RANK = True


_modules_seen: tuple[int, str] = (0, "")
_sent_by_value: set[str] = set()
# Attributes of a module that lead to pytest's import hook and its whole configuration.
_OF_THE_IMPORT_SYSTEM = frozenset({"__builtins__", "__cached__", "__loader__", "__spec__"})


def _send_test_modules_by_value() -> None:
    """Register the modules that a rank could not import as pytest did: test modules and conftest files."""
    global _modules_seen  # noqa: PLW0603 - avoids a scan of sys.modules for each dispatch
    modules = len(sys.modules), next(reversed(sys.modules))
    if modules == _modules_seen:
        return
    _modules_seen = modules
    for name, module in list(sys.modules.items()):
        if _compat.is_rewritten_by_pytest(module) and not _importable_in_ranks(name):
            cloudpickle.register_pickle_by_value(module)
            _sent_by_value.add(name)


def _importable_in_ranks(module_name: str) -> bool:
    if module_name == _SUITES_PACKAGE or module_name.startswith(_SUITES_PACKAGE + "."):
        return False
    return module_name == _OWN_PACKAGE or module_name.startswith(_OWN_PACKAGE + ".")


def _describe(function: Callable[..., Any]) -> str:
    return f"the function {getattr(function, '__qualname__', repr(function))}"


def _culprit(
    function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], error: Exception
) -> str:
    parts: list[tuple[str, Any]] = [(f"argument {i}", value) for i, value in enumerate(args)]
    parts += [(f"argument {name!r}", value) for name, value in kwargs.items()]
    parts += [(f"its variable {name!r}", value) for name, value in _free_variables(function).items()]
    for name, value in parts:
        try:
            _dumps(value)
        except Exception as cause:
            return (
                f"{name}, a {type(value).__module__}.{type(value).__qualname__}, can't be pickled ({cause}); "
                "pass plain data, or make the object inside the function"
            )
    return str(error)


def _free_variables(function: Callable[..., Any]) -> dict[str, Any]:
    code = getattr(function, "__code__", None)
    cells = getattr(function, "__closure__", None) or ()
    if code is None:
        return {}
    filled = {
        name: cell.cell_contents
        for name, cell in zip(code.co_freevars, cells, strict=True)
        if _is_filled(cell)
    }
    used = {name: function.__globals__[name] for name in code.co_names if name in function.__globals__}
    return {**filled, **used}


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018 - an empty cell raises here
    except ValueError:
        return False
    return True
