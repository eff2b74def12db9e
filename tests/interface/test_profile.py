"""The profile `communicator`: judged where somebody names the class of a communicator."""

from __future__ import annotations

import pytest
import torch  # noqa: F401 - before sessions in this process, which would drop it and cannot import it again

from pytest_vdist.certification.declared import DeclaredSpec
from pytest_vdist.certification.preparation import choose
from pytest_vdist.implementations.spec import ImplementationSpec
from pytest_vdist.interface.inspection import Question, inspect_classes
from pytest_vdist.options import options_of

BARE = """
from pytest_vdist import Capabilities

class Bare:
    name = "bare"
    def capabilities(self, device_type): return Capabilities()
    def init(self, settings): pass
    def coordinator(self, group_ranks, *, name): pass
    def destroy(self): pass

class Listless(Bare):
    def coordinator_class(self, device_type): return Bare
"""

MANIFEST = """
schema = "vdist-manifest/1"
[device]
name = "cpu"
[unsupported]
gather = "not before firmware 7"
"""

pytestmark = pytest.mark.usefixtures("plain_sessions")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((), "no class of a communicator is known: pass --vdist-interface=HOST=pkg.mod:Class"),
        (("--vdist-interface=vllm=a.b:C",), None),
        (("--vdist-impl=reference",), None),
        (("--vdist-impl=reference", "--vdist-backend=cpu", "--vdist-manifest=m.toml"), None),
    ],
    ids=["nobody", "the option", "the implementation", "the implementation with a manifest"],
)
def test_the_profile_is_judged_where_a_class_is_named(
    pytester: pytest.Pytester, arguments: tuple[str, ...], reason: str | None
) -> None:
    pytester.makepyfile(bare=BARE)
    (pytester.path / "m.toml").write_text(MANIFEST)
    options = options_of(pytester.parseconfigure("--vdist-impl=bare.py:Bare", *arguments))
    choice = choose(options)
    assert choice.not_judged.get("communicator") == reason
    assert ("communicator" in choice.profiles) == (reason is None)


def test_a_method_that_the_manifest_says_there_is_not_may_be_missing(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pytester.path)
    pytester.makepyfile(bare=BARE)
    own = ImplementationSpec.resolve("bare.py:Listless", "a test")
    declared = DeclaredSpec(own.name, own.target, own.origin, MANIFEST, "m.toml")
    for spec, is_missing in ((own, True), (declared, False)):
        unsupported = spec.load().capabilities("cpu").unsupported
        found = inspect_classes(Question.about(spec, "cpu", (), unsupported)).coordinator
        assert found is not None
        assert any(".gather: " in line for line in found.differences["missing"]) is is_missing
        assert any(".all_reduce: " in line for line in found.differences["missing"])
