"""What inductor needs to compile for this device: code for the CPU, because the memory is host memory.

Inductor finds the names of `__all__` in the module of a PrivateUse1 device when it first compiles anything
(`torch._inductor.codegen.common.init_backend_registration`). All that is imported here is private to torch
and was checked with 2.11 and 2.13; importing it takes seconds, so nothing but inductor asks for it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch._dynamo.device_interface import CpuInterface, register_interface_for_device
from torch._inductor import config
from torch._inductor.codegen import wrapper
from torch._inductor.codegen.common import DeviceOpOverrides, register_device_op_overrides
from torch._inductor.codegen.cpp import CppScheduling as Scheduling
from torch._inductor.codegen.cpp_wrapper_cpu import CppWrapperCpu as CppWrapperCodegen
from torch._inductor.codegen.wrapper_fxir import WrapperFxCodegen

from .settings import device_count

__all__ = ["CppWrapperCodegen", "PythonWrapperCodegen", "Scheduling", "WrapperFxCodegen"]

_DEVICE_TYPE = "simdev"
_Wrapper: Any = wrapper.PythonWrapperCodegen
_CPU = torch.device("cpu")


class PythonWrapperCodegen(_Wrapper):  # type: ignore[misc]
    """Calls kernels as those for the CPU are called."""

    @staticmethod
    def create(is_subgraph: bool, subgraph_name: Any, parent_wrapper: Any, *partition_signatures: Any) -> Any:
        if is_subgraph:
            return _Wrapper.create(is_subgraph, subgraph_name, parent_wrapper, *partition_signatures)
        return PythonWrapperCodegen()

    def _generate_kernel_call_helper(
        self, kernel_name: str, call_args: Any, *, device: Any = None, **rest: Any
    ) -> None:
        on_this_device = device is not None and device.type == _DEVICE_TYPE
        super()._generate_kernel_call_helper(
            kernel_name, call_args, device=_CPU if device is None or on_this_device else device, **rest
        )


class _Overrides(DeviceOpOverrides):
    """The lines of generated code that select a device and wait for it."""

    def import_get_raw_stream_as(self, name: str) -> str:
        return f"def {name}(_): return 0"

    def set_device(self, device_idx: int) -> str:
        return f"torch.{_DEVICE_TYPE}.set_device({device_idx})"

    def synchronize(self) -> str:
        return f"torch.{_DEVICE_TYPE}.synchronize()"

    def device_guard(self, device_idx: int) -> str:
        return f"torch.{_DEVICE_TYPE}.device({device_idx})"


class _Interface(CpuInterface):
    """What the compiler asks of a device; it has no triton."""

    @staticmethod
    def is_triton_capable(device: Any = None) -> bool:  # noqa: ARG004 - the same for all
        return False


# torch 2.13 reindexes loops on all devices but "cpu", in a way that its code for the CPU does not know.
if hasattr(config, "loop_reindexing_after_fusion"):
    config.loop_reindexing_after_fusion = False
# Inductor takes every device that it does not know for one with the back end of CUDA, whose variables have no
# types of C++: `torch._inductor.utils.get_current_backend`.
setattr(config, "cuda_backend", config.cpu_backend)  # noqa: B010 - "cpp", which is not among its types
register_device_op_overrides(_DEVICE_TYPE, _Overrides())
for _name in (_DEVICE_TYPE, *(f"{_DEVICE_TYPE}:{index}" for index in range(device_count()))):
    register_interface_for_device(_name, _Interface)
