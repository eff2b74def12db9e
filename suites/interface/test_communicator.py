"""A communicator's class, as its host framework calls it: compared before any rank starts."""

from __future__ import annotations

import pytest

from pytest_vdist import Inspection


def assert_none(inspection: Inspection, kind: str) -> None:
    """Assert that no difference of that kind was found with any host."""
    __tracebackhide__ = True
    if not inspection.communicators:
        pytest.skip(
            "not run: no class of a communicator is known: pass --vdist-interface=HOST=pkg.mod:Class, or "
            "give the implementation a method communicators()"
        )
    found = [
        line
        for each in inspection.communicators
        if each.differences[kind]
        for line in (each.about, *each.differences[kind])
    ]
    if found:
        raise AssertionError("\n".join(found))


@pytest.mark.vdist_requirement("VD-HOST-001")
def test_the_host_can_make_the_communicator(interface_inspection: Inspection) -> None:
    """The constructor accepts what the host passes, and demands nothing else."""
    assert_none(interface_inspection, "constructor")


@pytest.mark.vdist_requirement("VD-HOST-002")
def test_the_host_can_call_the_communicator(interface_inspection: Inspection) -> None:
    """Every method that the host calls is there and takes each argument where the host passes it."""
    assert_none(interface_inspection, "calls")


@pytest.mark.vdist_requirement("VD-HOST-003")
def test_what_is_overridden_accepts_no_less(interface_inspection: Inspection) -> None:
    """A method accepts every call that the host's base class accepts, ones that nobody makes yet too."""
    assert_none(interface_inspection, "overrides")
