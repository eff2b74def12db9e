"""The profile `communicator`: judged where somebody names the class of a communicator."""

from __future__ import annotations

import pytest
import torch  # noqa: F401 - before sessions in this process, which would drop it and cannot import it again

from pytest_vdist.certification.preparation import choose
from pytest_vdist.options import options_of

BARE = """
from pytest_vdist import Capabilities

class Bare:
    name = "bare"
    def capabilities(self, device_type): return Capabilities()
    def init(self, settings): pass
    def coordinator(self, group_ranks, *, name): pass
    def destroy(self): pass
"""

pytestmark = pytest.mark.usefixtures("plain_sessions")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((), "no class of a communicator is known: pass --vdist-interface=HOST=pkg.mod:Class"),
        (("--vdist-interface=vllm=a.b:C",), None),
        (("--vdist-impl=reference",), None),
    ],
    ids=["nobody", "the option", "the implementation"],
)
def test_the_profile_is_judged_where_a_class_is_named(
    pytester: pytest.Pytester, arguments: tuple[str, ...], reason: str | None
) -> None:
    pytester.makepyfile(bare=BARE)
    options = options_of(pytester.parseconfigure("--vdist-impl=bare.py:Bare", *arguments))
    choice = choose(options)
    assert choice.not_judged.get("communicator") == reason
    assert ("communicator" in choice.profiles) == (reason is None)
