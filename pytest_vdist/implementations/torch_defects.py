"""What torch's own process groups get wrong, for coordinators that show them and do not mend it."""

from __future__ import annotations

_BY_DEVICE_TYPE = {
    "cpu": {
        "process_group_layouts": "gloo takes tensors with strides for contiguous ones, without an error",
        "process_group_message_handles": "a second wait() for a message of gloo's does not return",
        "process_group_completion": "the handle of gloo's reduce-scatter is not completed after wait()",
        "process_group_remainders": "gloo's all_to_all_single leaves out rows beyond equal parts",
    },
    "cuda": {
        "process_group_layouts": "NCCL takes channels-last tensors, and messages of any strides, as they lie",
        "process_group_contradictions": "torch checks few arguments for NCCL: all_to_all of too few tensors "
        "leaves a rank waiting",
        "process_group_remainders": "all_to_all_single over NCCL leaves out rows beyond equal parts",
        "process_group_futures": "where a rank gets nothing, as in gather, its future over NCCL raises",
    },
}


def known_defects(device_type: str) -> dict[str, str]:
    """Return features of process groups for `Capabilities.unsupported`, with the reasons.

    They are among the findings of docs/findings.md. An implementation that is nothing but torch.distributed
    does not declare them: they are its failures.
    """
    return dict(_BY_DEVICE_TYPE.get(device_type, {}))


def unchecked_calls(device_type: str) -> dict[str, str]:
    """Say which differences between the calls of ranks torch's backends take for data."""
    unnoticed = ("shape", "dtype", "operation", "root") if device_type == "cuda" else ("shape", "dtype")
    reason = (
        "torch.distributed does not compare what the ranks call: data of one call is taken for that of the "
        "other, or a process is aborted; TORCH_DISTRIBUTED_DEBUG=DETAIL finds such calls"
    )
    return dict.fromkeys(unnoticed, reason)
