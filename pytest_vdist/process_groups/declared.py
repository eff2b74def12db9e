"""What an implementation declares that torch's process groups get wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_vdist.implementations.protocol import Capabilities


def skip_if_declared(capabilities: Capabilities, feature: str) -> None:
    """Skip the test, with the reason, where `feature` is declared unsupported."""
    if not capabilities.supports(feature):
        pytest.skip(f"unsupported: {feature}: {capabilities.unsupported[feature]}")
