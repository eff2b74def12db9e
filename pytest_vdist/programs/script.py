"""A program as a stand-alone script for torchrun: inputs and right results are in it."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from pytest_vdist.judge.buffers import guard
from pytest_vdist.judge.formats import dtype_name, raw_bytes

from .inputs import input_of
from .model import AS_IT_IS, Program
from .oracle import ExactTensor, Expected, Oracle, Value, Within
from .statements import Statement, group_name, statements_of

_COMPRESS_FROM = 64

_HELPERS = """
import base64, os, sys, zlib
from types import SimpleNamespace

import torch

{imports}

RANK, WORLD_SIZE = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
{local_rank}
assert WORLD_SIZE == {world_size}, "run it by: torchrun --nproc-per-node={world_size}"
wrong, kept = [], []


def tensor(dtype, shape, data):
    raw = zlib.decompress(base64.b64decode(data[1:])) if data.startswith("z") else bytes.fromhex(data)
    flat = torch.frombuffer(bytearray(raw), dtype=dtype) if raw else torch.empty(0, dtype=dtype)
    return flat.reshape(shape)


def keep(name, made):
    kept.append((name, made, bits(made)))
    return made


def laid_out(values, strides, offset):
    size = offset + 1 + sum((n - 1) * s for n, s in zip(values.shape, strides)) if values.numel() else offset
    memory = torch.empty(size, dtype=values.dtype, device=values.device)
    return memory.as_strided(values.shape, strides, offset).copy_(values)


def bits(value):
    return bytes(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).tolist())


def same(got, want, zeros_equal=False):
    if isinstance(want, torch.Tensor):
        if not isinstance(got, torch.Tensor) or got.dtype != want.dtype or got.shape != want.shape:
            return False
        return bits(got) == bits(want) or (zeros_equal and bool((got.cpu() == want).all()))
    if isinstance(want, dict):
        return type(got) is dict and list(got) == list(want) and all(same(got[k], want[k]) for k in want)
    return repr(got) == repr(want)


def check(call, got, want, zeros_equal=False):
    if not same(got, want, zeros_equal):
        wrong.append(f"rank {{RANK}}, {{call}}:\\n  got  {{got}}\\n  want {{want}}")
    elif isinstance(got, torch.Tensor):
        keep(f"the result of {{call}}", got)


def check_within(call, got, want, limit):
    if got.shape != want.shape or not bool(((got.cpu().double() - want).abs() <= limit).all()):
        wrong.append(f"rank {{RANK}}, {{call}}:\\n  got  {{got}}\\n  want {{want}} within {{limit}}")


def check_refused(call, function):
    try:
        got = function()
    except Exception:
        return
    wrong.append(f"rank {{RANK}}, {{call}}:\\n  got  {{got}}\\n  want an error")


def wait_for(handles):
    for handle in handles:
        handle.wait()


def completed(received):
    made, handles, postprocess = received
    wait_for(handles)
    for function in postprocess:
        function()
    return made


implementation = {factory}()
implementation.init(SimpleNamespace(
    rank=RANK, world_size=WORLD_SIZE, local_rank=LOCAL_RANK, device_type={device_type!r}, init_method="env://",
    backend=None, timeout=None, cpu_timeout=None, split_group={split_group},
))
world = implementation.coordinator([list(range(WORLD_SIZE))], name="world")
device = world.device
"""

_END = """
for name, value, before in kept:
    if bits(value) != before:
        wrong.append(f"rank {RANK}: {name} was changed later")
print("\\n".join(wrong) or f"rank {RANK}: all is right", flush=True)
sys.exit(bool(wrong))
"""


_CAPTURED = """
def captured(function):
    def call(*tensors):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(2):
                function(*tensors)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            results = function(*tensors)
        graph.replay()
        return results
    return call
"""


@dataclass(frozen=True)
class Setting:
    """Where a program ran: `target` is "pkg.mod:factory" or "file.py:factory" of the implementation.

    With a `compile_mode` it was one function that was compiled so. `devices` is their number where ranks
    share them when they are too few, with `sharing_environment`, in which {node} is the number of the node
    that a rank is placed on; None stands for enough.
    """

    target: str
    device_type: str = "cpu"
    rank_setup: str = ""
    split_group: bool = False
    accumulate: Mapping[str, str] | None = None
    compile_mode: str | None = None
    devices: int | None = None
    sharing_environment: Mapping[str, str] | None = None

    def are_shared_by(self, ranks: int) -> bool:
        return self.devices is not None and ranks > self.devices


def _local_rank(ranks: int, setting: Setting) -> str:
    """Return the lines that place a rank: on its own device, or as on several nodes with the same ones."""
    if not setting.are_shared_by(ranks):
        return 'LOCAL_RANK = int(os.environ.get("LOCAL_RANK", RANK))'
    lines = [f"NODE, LOCAL_RANK = divmod(RANK, {setting.devices})  # ranks share the devices"]
    lines += [
        f"os.environ[{name!r}] = {value!r}.format(node=NODE)"
        for name, value in (setting.sharing_environment or {}).items()
    ]
    return "\n".join(lines)


def script_of(program: Program, setting: Setting) -> str:
    """Return a script that carries out the program under torchrun and ends with 1 where anything is wrong."""
    imports, factory = _factory(setting)
    parts = [
        _HELPERS.lstrip()
        .format(
            imports=imports,
            world_size=program.world_size,
            local_rank=_local_rank(program.world_size, setting),
            factory=factory,
            device_type=setting.device_type,
            split_group=setting.split_group,
        )
        .rstrip()
    ]
    expectations = Oracle(program, dict(setting.accumulate or {})).expectations()
    parts += [
        f"{group_name(number)} = implementation.coordinator("
        f"{[list(ranks) for ranks in groups.ranks]}, name='{group_name(number)}')"
        for number, groups in enumerate(program.groups)
        if number
    ]
    if setting.compile_mode == "cudagraph":
        parts.append(_CAPTURED)
    for rank in range(program.world_size):
        parts.append(f"\nif RANK == {rank}:")
        mode = setting.compile_mode
        lines = (
            _plain(program, rank, expectations)
            if mode is None
            else _compiled(program, rank, expectations, mode)
        )
        parts += [f"    {line}" for line in lines or ["pass"]]
    return "\n".join(parts) + "\n" + _END


def _factory(setting: Setting) -> tuple[str, str]:
    module, _, name = setting.target.rpartition(":")
    lines = []
    if setting.rank_setup:
        setup_module, _, setup = setting.rank_setup.partition(":")
        lines += [f"from {setup_module} import {setup} as set_up_device", "", "set_up_device()"]
    if module.endswith(".py"):
        folder, _, stem = module.removesuffix(".py").rpartition("/")
        lines += [f"sys.path.insert(0, {folder or '.'!r})", f"import {stem} as vendor"]
    else:
        lines += ["import importlib", "", f"vendor = importlib.import_module({module!r})"]
    return "\n".join(lines), f"vendor.{name}"


def _plain(program: Program, rank: int, expectations: list[list[Expected]]) -> list[str]:
    return [
        line for each in statements_of(program, rank) for line in _lines(program, rank, each, expectations)
    ]


def _compiled(program: Program, rank: int, expectations: list[list[Expected]], mode: str) -> list[str]:
    """Write the calls as one function that is compiled, and look at what it returns."""
    statements = statements_of(program, rank)
    calls = [each for each in statements if each.call is not None]
    lines = [
        line for each in statements if each.call is None for line in _lines(program, rank, each, expectations)
    ]
    inputs = ", ".join(each.code.partition(" ")[0] for each in statements if each.call is None)
    results = ", ".join(each.result for each in calls)
    lines += [f"def program({inputs}):", *(f"    {each.code}" for each in calls), f"    return [{results}]"]
    compiler = {
        "eager": "program",
        "cudagraph": "captured(program)",
    }.get(mode, f"torch.compile(program, backend={mode!r})")
    lines.append(f"[{results}] = {compiler}({inputs})")
    return lines + [_lines(program, rank, each, expectations)[1] for each in calls]


def _lines(
    program: Program, rank: int, statement: Statement, expectations: list[list[Expected]]
) -> list[str]:
    if statement.call is None:
        name = statement.code.partition(" ")[0]
        made = _literal(input_of(program, int(name[1:]), rank))
        return [f"{name} = keep('input {name}', {made}.to(device))"]
    code = _with_layouts(program, statement, rank)
    if statement.refused:
        return [f"check_refused({statement.code!r}, lambda: {code})"]
    if not statement.result:
        return [code]
    want = expectations[statement.call][rank]
    return [code, _check(statement, want)]


def _with_layouts(program: Program, statement: Statement, rank: int) -> str:
    """Write copies in a layout by their strides."""
    assert statement.call is not None
    code = statement.code
    for operand in program.calls[statement.call].operands:
        written = f"{operand.layout}({operand.value})"
        if operand.layout != AS_IT_IS and written in code:
            form = Oracle(program).forms[operand.value]
            placed = guard(torch.zeros(form.shapes[rank] or ()), operand.layout).tensor
            offset = int(operand.layout == "offset")
            code = code.replace(written, f"laid_out({operand.value}, {placed.stride()}, {offset})")
    return code


def _check(statement: Statement, want: Expected) -> str:
    call, got = repr(statement.code[:200]), statement.result
    if isinstance(want, Within):
        total = _literal(want.bound.total.high)
        return f"check_within({call}, {got}, {total}, {_literal(want.bound.limit)})"
    if isinstance(want, ExactTensor):
        return f"check({call}, {got}, {_literal(want.tensor)}, zeros_equal={want.zeros_equal})"
    assert isinstance(want, Value)
    value = want.value
    if isinstance(value, list) and "r" in got:
        value = value[int(got.partition("r")[2])]
    return f"check({call}, {got}, {_literal(value)})"


def _literal(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        data = raw_bytes(value).numpy().tobytes()
        text = data.hex()
        if len(data) > _COMPRESS_FROM:
            text = "z" + base64.b64encode(zlib.compress(data)).decode()
        return f"tensor(torch.{dtype_name(value.dtype)}, {tuple(value.shape)}, {text!r})"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {_literal(each)}" for key, each in value.items()) + "}"
    return repr(value)
