"""The operator vllm::all_reduce is registered without side effects, and overwrites its input on the CPU.

Class: defect
Requirement: VD-AR-004
Source: vllm/distributed/parallel_state.py, direct_register_custom_op(op_name="all_reduce"); vllm/distributed/device_communicators/base_device_communicator.py, DeviceCommunicatorBase.all_reduce

The same line as of all_reduce, with another consequence: compilers may put calls of such an operator in
another order than reads of its input. torch.library.opcheck tells. On the CPU GroupCoordinator.all_reduce
does not call the operator; it does on platforms whose use_custom_op_collectives() says so, with the
communicator of the base class unless they override it.

Run: VLLM_TARGET_DEVICE=cpu torchrun --nproc-per-node=2 vllm_operator_overwrites_input.py
"""

import os

import torch
from vllm.distributed import parallel_state as vllm_groups

rank = int(os.environ["RANK"])
vllm_groups.init_distributed_environment(2, rank, "env://", rank, "gloo")
group = vllm_groups.init_model_parallel_group([[0, 1]], rank, "gloo", group_name="finding")
x = torch.tensor([1.0 + rank])
print(f"rank {rank}: {torch.ops.vllm.all_reduce.default._schema}", flush=True)
torch.ops.vllm.all_reduce(x, group_name=group.unique_name)
print(f"rank {rank}: the input is now {x.tolist()}, it was {[1.0 + rank]}", flush=True)
