from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pytest_vdist.backends.base import Availability, BackendError, DeviceBackend
from pytest_vdist.backends.registry import BUILT_IN, availability, find_backend, require_devices

ORIGIN = "the command line"
VENDOR = """
from pytest_vdist import Availability, DeviceBackend

def probe():
    return Availability(2, "mydev devices")

def make(name="mydev"):
    return DeviceBackend(name, "mydev", "myccl", probe, lambda: "myccl 1.0", ("float32",), ("float32",))

BACKEND = make()
MISNAMED = make("other")
NUMBER = 3

def broken():
    raise RuntimeError("driver exploded")
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder on the module path that holds a vendor's module."""
    module = tmp_path / f"vendor_{tmp_path.name.replace('-', '_')}.py"
    module.write_text(VENDOR)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def install(site: Path, distribution: str, name: str, attribute: str) -> None:
    """Install a distribution that registers an attribute of the vendor's module as a backend."""
    (module,) = site.glob("vendor_*.py")
    metadata = site / f"{distribution}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        f"[pytest_vdist.backends]\n{name} = {module.stem}:{attribute}\n"
    )


@pytest.mark.parametrize("name", ["cpu", "cuda", "xpu"])
def test_a_built_in_backend_is_found_by_name_without_asking_for_its_device(name: str) -> None:
    assert find_backend(name, origin=ORIGIN).name == name


def test_an_unknown_backend_is_refused_with_near_and_known_names(site: Path) -> None:
    install(site, "acme", "mydev", "BACKEND")
    with pytest.raises(BackendError) as caught:
        find_backend("mydew", origin=ORIGIN)
    assert str(caught.value) == (
        "unknown backend, got 'mydew' from the command line; did you mean mydev? "
        "the known backends are cpu, cuda, mydev, simdev, xpu; "
        "vendors add theirs by the entry-point group pytest_vdist.backends or the hook pytest_vdist_backends"
    )


@pytest.mark.parametrize("attribute", ["BACKEND", "make"])
def test_an_entry_point_gives_a_backend_or_a_callable_that_returns_one(site: Path, attribute: str) -> None:
    install(site, "acme", "mydev", attribute)
    assert find_backend("mydev", origin=ORIGIN).process_group_backend == "myccl"


def test_an_entry_point_that_raises_is_refused_with_its_distribution(site: Path) -> None:
    install(site, "acme", "mydev", "broken")
    with pytest.raises(BackendError) as caught:
        find_backend("mydev", origin=ORIGIN)
    text = str(caught.value)
    assert text.startswith(
        "cannot load backend 'mydev' from the command line: the entry point mydev = vendor_"
    )
    assert text.endswith(
        ":broken of the distribution acme raised RuntimeError: driver exploded; repair or uninstall acme"
    )


def test_an_entry_point_that_does_not_exist_is_refused_with_its_distribution(site: Path) -> None:
    install(site, "acme", "mydev", "missing")
    with pytest.raises(BackendError, match=r"of the distribution acme raised AttributeError: .*'missing'"):
        find_backend("mydev", origin=ORIGIN)


def test_an_entry_point_that_gives_something_else_is_refused(site: Path) -> None:
    install(site, "acme", "mydev", "NUMBER")
    with pytest.raises(BackendError, match=r"acme must give a DeviceBackend or a callable .*, got 3; repair"):
        find_backend("mydev", origin=ORIGIN)


def test_an_entry_point_whose_backend_has_another_name_is_refused(site: Path) -> None:
    install(site, "acme", "mydev", "MISNAMED")
    with pytest.raises(BackendError, match="acme gives a backend that is named 'other'"):
        find_backend("mydev", origin=ORIGIN)


def test_two_distributions_with_one_name_are_refused(site: Path) -> None:
    install(site, "acme", "mydev", "BACKEND")
    install(site, "bolt", "mydev", "BACKEND")
    with pytest.raises(BackendError, match=r"more than one backend is named 'mydev'.* acme, bolt|bolt, acme"):
        find_backend("mydev", origin=ORIGIN)


def test_a_vendor_cannot_replace_a_built_in_backend(site: Path) -> None:
    install(site, "acme", "cpu", "make")
    with pytest.raises(BackendError, match=r"'cpu' is built in, .* distribution acme registers it as well"):
        find_backend("cpu", origin=ORIGIN)


def test_the_cpu_is_available_and_shared_by_any_number_of_ranks() -> None:
    cpu = BUILT_IN["cpu"]
    assert require_devices(cpu, origin=ORIGIN).available
    assert cpu.shares_device
    assert cpu.library_version() == f"gloo of torch {torch.__version__}"


@pytest.mark.skipif(torch.xpu.is_available(), reason="this machine has the device")
def test_a_known_backend_without_a_device_is_refused_with_what_was_looked_for_and_how_to_get_it() -> None:
    with pytest.raises(BackendError) as caught:
        require_devices(BUILT_IN["xpu"], origin="VDIST_BACKEND in the environment")
    text = str(caught.value)
    assert text.startswith(
        "backend 'xpu' has no device on this machine, got 'xpu' from VDIST_BACKEND in the environment; "
        "looked for devices by torch.xpu.device_count(), found 0, and the process-group backend xccl in torch"
    )
    assert "; to get it, install the XPU build of torch (https://" in text


def test_the_probe_is_asked_once() -> None:
    calls = []

    def probe() -> Availability:
        calls.append("asked")
        return Availability(3, "nothing")

    backend = DeviceBackend("x", "x", "x", probe, lambda: "", (), ())
    assert [availability(backend).device_count for _ in range(3)] == [3, 3, 3]
    assert calls == ["asked"]


def old_driver() -> Availability:
    raise RuntimeError("driver too old")


def only_a_number() -> Any:
    return 4


@pytest.mark.parametrize(
    ("probe", "problem"),
    [(old_driver, "raised RuntimeError: driver too old"), (only_a_number, "returned 4")],
)
def test_a_probe_that_raises_or_returns_something_else_is_named(probe: Any, problem: str) -> None:
    backend = DeviceBackend("x", "x", "x", probe, lambda: "", (), ())
    with pytest.raises(BackendError) as caught:
        require_devices(backend, origin=ORIGIN)
    assert str(caught.value) == (
        f"the probe of backend 'x', {__name__}.{probe.__name__}, {problem}; it must return "
        "pytest_vdist.Availability, with device_count 0 where there is no device"
    )


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"start_method": "fork"}, "start_method must be one of forkserver, spawn, got 'fork'"),
        ({"rank_setup": "os"}, "rank_setup must be pkg.mod:function, or empty, got 'os'"),
        (
            {"reduction_dtypes": "float32"},
            'reduction_dtypes must be a tuple of names of torch dtypes, such as ("float32", "int64"), '
            "got 'float32'",
        ),
        (
            {"movement_dtypes": (torch.float32,)},
            'movement_dtypes must be a tuple of names of torch dtypes, such as ("float32", "int64"), '
            "got (torch.float32,)",
        ),
        *(
            (
                {"sharing_environment": wrong},
                "sharing_environment must be None, or names of variables with texts in which nothing but "
                f"{{node}} is in braces, got {wrong!r}",
            )
            for wrong in (
                {"HOST": "{share}"},
                {"HOST": "{}"},
                {"HOST": "{"},
                {"HOST": "{node[0]}"},
                {"HOST": "{node!r}"},
                {"HOST": "{node:3}"},
                {"HOST": "x\0"},
                {"HOST": 1},
                {"A=B": "x"},
                {"": "x"},
                {3: "x"},
                "HOST=x",
            )
        ),
    ],
)
def test_values_of_a_backend_that_cannot_hold_are_refused(values: dict[str, Any], problem: str) -> None:
    with pytest.raises(BackendError) as caught:
        replace(BUILT_IN["cpu"], **values)
    assert str(caught.value) == f"device backend 'cpu': {problem}"


@pytest.mark.parametrize("backend", BUILT_IN.values(), ids=BUILT_IN)
def test_declared_dtypes_are_names_of_torch_dtypes(backend: DeviceBackend) -> None:
    names = (*backend.reduction_dtypes, *backend.movement_dtypes)
    assert names
    assert all(isinstance(getattr(torch, name), torch.dtype) for name in names)


def test_a_backend_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        BUILT_IN["cpu"].name = "gpu"  # type: ignore[misc]
