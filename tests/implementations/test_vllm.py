"""A small package of vLLM's shape stands in for it: what the real one does is told in docs/findings.md."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_vdist.implementations import vllm as adapter
from pytest_vdist.implementations.protocol import InitSettings
from pytest_vdist.implementations.vllm import VllmError, VllmImplementation, missing_interface, require_vllm

MODULE = """
MADE = []

class Group:
    def __init__(self, ranks): self.group_ranks = ranks
    def destroy(self): MADE.append("destroyed a group")

def init_distributed_environment(world_size, rank, distributed_init_method, local_rank, backend, timeout):
    import os
    MADE.append((world_size, rank, backend, timeout, os.environ["VLLM_DISTRIBUTED_USE_SPLIT_GROUP"]))

def init_model_parallel_group(group_ranks, local_rank, backend, group_name):
    return Group(group_ranks)

def destroy_distributed_environment():
    MADE.append("destroyed the world")
"""


CONFIG = """
from contextlib import contextmanager
from types import SimpleNamespace

MADE = []

def ParallelConfig(**limits): return limits

def VllmConfig(parallel_config): return SimpleNamespace(limits=parallel_config)

@contextmanager
def set_current_vllm_config(config):
    MADE.append(config.limits)
    yield
    MADE.append("closed")
"""


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    """Make a package of vLLM's shape, with metadata, that stands in for the installed one."""
    for package in ("vllm", "vllm/distributed", "vllm/platforms", "vllm/config"):
        (folder / package).mkdir()
        (folder / package / "__init__.py").write_text("")
    (folder / "vllm/platforms/__init__.py").write_text(
        "class current_platform:\n    dist_backend = 'gloo'\n", encoding="utf-8"
    )
    (folder / "vllm/config/__init__.py").write_text(CONFIG, encoding="utf-8")
    (folder / "vllm/distributed/parallel_state.py").write_text(MODULE, encoding="utf-8")
    information = folder / f"vllm-{version}.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")
    for name in [name for name in sys.modules if name.partition(".")[0] == "vllm"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(folder))
    for name in ("VLLM_DISTRIBUTED_USE_SPLIT_GROUP", "VLLM_DIST_IDENT", "VLLM_TARGET_DEVICE"):
        monkeypatch.setenv(name, "as it was")


@pytest.fixture(autouse=True)
def _forget_the_stand_in() -> Any:
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "vllm"]:
        del sys.modules[name]


def settings(*, split_group: bool = False) -> InitSettings:
    return InitSettings(rank=0, world_size=2, local_rank=0, device_type="cpu", split_group=split_group)


def test_a_release_that_is_too_old_is_refused_with_the_oldest_that_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, "0.31.2")
    with pytest.raises(VllmError, match=r"vLLM must be 0\.32 or newer, got 0\.31\.2; install vllm 0\.32"):
        require_vllm()


def test_a_moved_interface_is_refused_by_the_names_that_are_missing() -> None:
    def init_model_parallel_group(group_ranks: object, rank: object, backend: object) -> None: ...

    moved = SimpleNamespace(
        init_model_parallel_group=init_model_parallel_group, destroy_distributed_environment=lambda: None
    )
    assert missing_interface(moved) == [
        "init_distributed_environment",
        "init_model_parallel_group(local_rank)",
        "init_model_parallel_group(group_name)",
    ]


def test_a_release_whose_interface_has_moved_is_refused_by_version_when_a_world_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, "0.40.1")
    module = tmp_path / "vllm/distributed/parallel_state.py"
    module.write_text(MODULE.replace("def init_model_parallel_group", "def make_group"))
    with pytest.raises(VllmError) as caught:
        VllmImplementation().init(settings())
    assert str(caught.value) == (
        "vLLM 0.40.1 has moved its interface: vllm.distributed.parallel_state lacks "
        "init_model_parallel_group; releases 0.32 to 0.33 have it"
    )


def test_a_folder_that_is_named_vllm_is_not_taken_for_a_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, "0.33.0")
    (tmp_path / "vllm-0.33.0.dist-info" / "METADATA").unlink()
    (tmp_path / "vllm-0.33.0.dist-info").rmdir()
    with pytest.raises(VllmError, match=r"vLLM is here without its metadata: which version is it\?"):
        require_vllm()


def test_limits_reach_the_configuration_in_whole_seconds_and_no_sooner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, "0.33.0")
    implementation = VllmImplementation()
    implementation.init(replace(settings(), timeout=2.25, cpu_timeout=0.5))
    during = list(import_module("vllm.config").MADE)
    implementation.destroy()
    assert during == [{"distributed_timeout_seconds": 3, "cpu_distributed_timeout_seconds": 1}]
    assert import_module("vllm.config").MADE[-1] == "closed"


def test_splitting_that_torch_cannot_do_is_refused_before_any_rank_meets_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, "0.33.0")
    monkeypatch.setattr(adapter, "torch_obstacle", lambda device_type: f"split_group: not on {device_type}")
    assert VllmImplementation().capabilities("cpu").unsupported["split_group"] == "split_group: not on cpu"
    with pytest.raises(VllmError, match="split_group: not on cpu"):
        VllmImplementation().init(settings(split_group=True))
    assert import_module("vllm.distributed.parallel_state").MADE == []


def test_what_is_imported_before_the_fork_ignores_a_package_that_cannot_be_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ranks meet the error again, where it can be told; a fork server that raised would tell nothing."""
    install(tmp_path, monkeypatch, "0.33.0")
    (tmp_path / "vllm/distributed/parallel_state.py").write_text("raise OSError('no libnuma')")
    (module,) = VllmImplementation().capabilities("cpu").preload
    sys.modules.pop(module, None)
    import_module(module)
    gc.unfreeze()
    assert VllmImplementation().capabilities("cuda").preload == ()


@pytest.mark.parametrize("split_group", [False, True])
def test_the_world_is_made_by_vllm_with_the_toggle_of_the_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split_group: bool
) -> None:
    install(tmp_path, monkeypatch, "0.33.0")
    monkeypatch.setattr(adapter, "torch_obstacle", lambda _device_type: None)
    implementation = VllmImplementation()
    implementation.init(settings(split_group=split_group))
    coordinator: Any = implementation.coordinator([[0, 1]], name="pair")
    implementation.destroy()
    made = import_module("vllm.distributed.parallel_state").MADE
    assert coordinator.group_ranks == [[0, 1]]
    assert made == [
        (2, 0, "gloo", None, str(int(split_group))),
        "destroyed a group",
        "destroyed the world",
    ]
    assert os.environ["VLLM_TARGET_DEVICE"] == "cpu"


def test_what_the_communicator_for_the_cpu_lacks_is_declared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, "0.33.0")
    declared = VllmImplementation().capabilities("cpu")
    assert not declared.supports("all_gatherv")
    assert not declared.supports("reduce_scatterv")
    assert VllmImplementation().capabilities("cuda").supports("all_gatherv")


@pytest.mark.skipif("vllm" in sys.modules, reason="vLLM is loaded")
def test_a_session_without_vllm_ends_in_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "test_nothing.py").write_text("def test_nothing(distributed_run): raise AssertionError\n")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--vdist-backend=cpu",
        "--vdist-impl=vllm",
    ]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ended = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.returncode == 4, ended.stdout
    assert "vLLM is not installed here; install vllm 0.32 or newer" in ended.stderr
