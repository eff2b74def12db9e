from __future__ import annotations

import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pytest_vdist import Capabilities
from pytest_vdist.implementations.spec import ImplementationError, ImplementationSpec
from pytest_vdist.reference_impl.split_groups import torch_obstacle

ORIGIN = "the command line"
VENDOR = """
from pytest_vdist import Capabilities

class Vendor:
    name = "vendor"
    def capabilities(self, device_type): return Capabilities(unsupported={"all_gatherv": "no ragged kernels"})
    def init(self, settings): ...
    def coordinator(self, group_ranks, *, name, **options): ...
    def destroy(self): ...

class Incomplete:
    name = "incomplete"
    def capabilities(self, device_type): return Capabilities()
    def init(self, settings): ...

class Nameless(Vendor):
    name = ""

class Misspelt(Vendor):
    def capabilities(self, device_type): return Capabilities(unsupported={"all_gaterv": "no ragged kernels"})

class Silent(Vendor):
    def capabilities(self, device_type): return None

def broken():
    raise RuntimeError("no licence")

NUMBER = 3
"""


@pytest.fixture
def vendor_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "vendor_comm.py"
    file.write_text(VENDOR)
    monkeypatch.chdir(tmp_path)
    return file


def refusal(text: str) -> str:
    with pytest.raises(ImplementationError) as caught:
        ImplementationSpec.resolve(text, ORIGIN).load()
    return str(caught.value)


def test_the_reference_is_known_by_name() -> None:
    implementation = ImplementationSpec.resolve("reference", "the default").load()
    assert implementation.name == "reference"


def test_the_reference_supports_what_it_does_not_declare_unsupported() -> None:
    capabilities = ImplementationSpec.resolve("reference", "the default").load().capabilities("cpu")
    assert capabilities.supports("split_group") == (torch_obstacle("cpu") is None)
    assert capabilities.supports("all_gatherv")


def test_a_file_is_found_from_the_current_directory_and_kept_absolute(vendor_file: Path) -> None:
    spec = ImplementationSpec.resolve("vendor_comm.py:Vendor", ORIGIN)
    assert spec.target == f"{vendor_file}:Vendor"
    assert spec.load().capabilities("cpu").unsupported == {"all_gatherv": "no ragged kernels"}


def test_a_module_is_imported_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "vendor_package").mkdir()
    (tmp_path / "vendor_package" / "comm.py").write_text(VENDOR)
    monkeypatch.syspath_prepend(tmp_path)
    assert ImplementationSpec.resolve("vendor_package.comm:Vendor", ORIGIN).load().name == "vendor"


def test_a_spec_gives_the_same_implementation_in_another_process(vendor_file: Path, tmp_path: Path) -> None:
    spec = ImplementationSpec.resolve("vendor_comm.py:Vendor", ORIGIN)
    code = "import pickle, sys; print(pickle.load(sys.stdin.buffer).load().name)"
    elsewhere = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps(spec), capture_output=True, cwd="/", check=True
    )
    assert elsewhere.stdout == b"vendor\n"


def test_objects_of_a_file_can_be_pickled(vendor_file: Path) -> None:
    implementation = ImplementationSpec.resolve("vendor_comm.py:Vendor", ORIGIN).load()
    assert type(pickle.loads(pickle.dumps(implementation))) is type(implementation)


def test_an_unknown_name_is_refused_with_the_known_one() -> None:
    assert refusal("torhc") == (
        "unknown implementation, got 'torhc' from the command line; "
        "the known ones are reference, torch, vllm, or pass pkg.mod:factory or file.py:factory"
    )


@pytest.mark.parametrize(
    "text", ["a b:factory", "pkg.mod:", ":factory", "pkg..mod:f", "file.py:a.b", "pkg:1"]
)
def test_a_malformed_target_is_refused(text: str) -> None:
    forms = "pkg.mod:factory or file.py:factory"
    assert refusal(text) == f"implementation must look like {forms}, got {text!r} from the command line"


def test_a_file_that_is_not_there_is_refused(vendor_file: Path) -> None:
    assert refusal("other.py:Vendor").startswith(
        f"no file at {vendor_file.parent / 'other.py'}, got 'other.py:Vendor' from the command line; pass "
    )


def test_a_module_that_cannot_be_imported_is_refused() -> None:
    assert refusal("no_such_package.comm:f") == (
        "cannot load the implementation, got 'no_such_package.comm:f' from the command line: "
        "cannot import no_such_package.comm: ModuleNotFoundError: No module named 'no_such_package'; "
        "pass a factory that can be imported here, as pkg.mod:factory or file.py:factory, "
        "or reference, torch, vllm"
    )


def test_a_file_that_raises_on_import_is_refused_each_time(vendor_file: Path) -> None:
    vendor_file.write_text("raise OSError('library not found')")
    texts = {refusal("vendor_comm.py:Vendor") for _ in range(2)}
    assert len(texts) == 1
    assert f"cannot import {vendor_file}: OSError: library not found" in texts.pop()


@pytest.mark.parametrize(
    ("factory", "problem"),
    [
        ("Missing", "{file} has no 'Missing'"),
        ("NUMBER", "{file}:NUMBER must be callable without arguments, got 3"),
        ("broken", "{file}:broken raised RuntimeError: no licence"),
        ("Incomplete", " lacks the methods coordinator, destroy of Implementation"),
        ("Nameless", " must have a name of one letter or more, got ''"),
    ],
)
def test_a_factory_that_gives_no_implementation_is_refused(
    vendor_file: Path, factory: str, problem: str
) -> None:
    assert problem.format(file=vendor_file) in refusal(f"vendor_comm.py:{factory}")


def test_claims_that_cannot_be_had_name_the_implementation(vendor_file: Path) -> None:
    expected = {
        "Misspelt": "raised ValueError: unsupported has the unknown name 'all_gaterv'; did you mean",
        "Silent": "must return pytest_vdist.Capabilities, got None",
    }
    for name, problem in expected.items():
        text = f"{vendor_file.name}:{name}"
        with pytest.raises(ImplementationError) as caught:
            ImplementationSpec.resolve(text, ORIGIN).capabilities("cpu")
        start = f"implementation {text!r} from {ORIGIN}: capabilities('cpu') {problem}"
        assert str(caught.value).startswith(start)


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        (
            {"unsupported": {"all_gaterv": "typo"}},
            "unsupported has the unknown name 'all_gaterv'; did you mean all_gatherv? the names are ",
        ),
        (
            {"accumulate": {"fp32": "exact"}},
            "accumulate has the unknown name 'fp32'; the names are float64, ",
        ),
        ({"operators": {"recv": "lib::recv"}}, "operators has the unknown name 'recv'; "),
        (
            {"unsupported": ["all_gatherv"]},
            "unsupported is a mapping, such as {'all_reduce': …}, got ['all_gatherv']",
        ),
    ],
)
def test_claims_that_nothing_reads_are_refused(claims: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}"):
        Capabilities(**claims)
