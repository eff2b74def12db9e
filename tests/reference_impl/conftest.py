from __future__ import annotations

from collections.abc import Iterator

import pytest

from pytest_vdist.backends.registry import find_backend, require_devices
from pytest_vdist.ranks.pool import RankPool


@pytest.fixture(scope="package")
def simdev_pool() -> Iterator[RankPool]:
    """Give ranks on the simulated accelerator, whatever --vdist-backend says."""
    backend = find_backend("simdev", origin="this test")
    pool = RankPool(backend, require_devices(backend, origin="this test").device_count)
    yield pool
    pool.close()
