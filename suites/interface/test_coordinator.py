"""The coordinator's methods, as the suites and their users call them: compared before any rank starts."""

from __future__ import annotations

import pytest

from pytest_vdist import Inspection


def assert_none(inspection: Inspection, kind: str) -> None:
    """Assert that no difference of that kind was found."""
    __tracebackhide__ = True
    assert inspection.coordinator is not None
    found = inspection.coordinator.differences[kind]
    if found:
        raise AssertionError("\n".join([inspection.coordinator.about, *found]))


@pytest.mark.vdist_requirement("VD-IFC-001")
def test_no_method_is_missing(interface_inspection: Inspection) -> None:
    """The class of the coordinators has every method of the protocol that is not declared unsupported."""
    assert_none(interface_inspection, "missing")


@pytest.mark.vdist_requirement("VD-IFC-002")
def test_methods_accept_the_calls_of_the_protocol(interface_inspection: Inspection) -> None:
    """Data goes by position, other arguments by position or name; what has a default may be left out."""
    assert_none(interface_inspection, "calls")


@pytest.mark.vdist_requirement("VD-IFC-003")
def test_arguments_that_are_left_out_mean_the_same(interface_inspection: Inspection) -> None:
    """Ranks and dimensions have the protocol's defaults."""
    assert_none(interface_inspection, "defaults")
