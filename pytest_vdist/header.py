"""What pytest prints at the start: everything that decides what is tested, and where it was set."""

from __future__ import annotations

from importlib import metadata

from pytest_vdist.backends.base import DeviceBackend
from pytest_vdist.options import DEFAULT, Options


def header_lines(options: Options) -> list[str]:
    """Return the lines of the report header; none if no option is set, so that an unused plugin is silent."""
    if not options.used:
        return []
    devices = ", ".join(f"{chosen.name} ({chosen.library_version()})" for chosen in options.backends)
    subgroups = ", ".join("split_group" if split else "new_group" for split in options.split_group)
    return [
        f"vdist: device {devices}{_origin(options, 'backend')}",
        f"vdist: torch {metadata.version('torch')}",
        f"vdist: implementation {options.implementation.name}{_origin(options, 'implementation')}",
        f"vdist: subgroups by {subgroups}{_origin(options, 'split_group')}",
        f"vdist: compile {', '.join(options.compile_modes)}{_origin(options, 'compile_modes')}",
        *_world_size_lines(options),
        *_run_lines(options),
        f"vdist: deadline of a run {options.timeout:g} s{_origin(options, 'timeout')}",
        *_limit_lines(options),
        (
            f"vdist: random programs {options.effort}{_origin(options, 'effort')}, "
            f"seed {options.seed}{_origin(options, 'seed')}"
        ),
    ]


def _run_lines(options: Options) -> list[str]:
    if options.runs_per_device == 1:
        return []
    return [f"vdist: runs at once on a device {options.runs_per_device}{_origin(options, 'runs_per_device')}"]


def _limit_lines(options: Options) -> list[str]:
    names = {"distributed_timeout_seconds": "device", "cpu_distributed_timeout_seconds": "CPU"}
    return [
        f"vdist: limit of {kind} groups {getattr(options, name):g} s{_origin(options, name)}"
        for name, kind in names.items()
        if options.is_given(name)
    ]


def _world_size_lines(options: Options) -> list[str]:
    lines = []
    for chosen in options.backends:
        selected = options.world_sizes_on(chosen)
        left_out = [size for size in options.world_sizes if size not in selected]
        device = f" on {chosen.name}" if len(options.backends) > 1 else ""
        lines.append(
            f"vdist: world sizes{device} {_joined(selected)}{_origin(options, 'world_sizes')}"
            + _sharing_text(options, chosen, selected)
            + (f"; left out for lack of devices: {_joined(left_out)}" if left_out else "")
            + (_advice_to_share(options, chosen, max(left_out)) if left_out else "")
        )
    return lines


def _sharing_text(options: Options, chosen: DeviceBackend, selected: tuple[int, ...]) -> str:
    sharing = [size for size in selected if options.ranks_on_one_device(size, chosen) > 1]
    origin = _origin(options, "ranks_per_device")
    return f"; ranks share devices in {_joined(sharing)}{origin}" if sharing else ""


def _advice_to_share(options: Options, chosen: DeviceBackend, size: int) -> str:
    option = "" if options.processes is not None else options.way_to_share(size, chosen)
    return f" ({option} lets ranks share)" if option else ""


def _joined(sizes: tuple[int, ...] | list[int]) -> str:
    return ", ".join(map(str, sizes)) or "none"


def _origin(options: Options, name: str) -> str:
    source = options.sources[name]
    return "" if source == DEFAULT else f" [{source}]"
