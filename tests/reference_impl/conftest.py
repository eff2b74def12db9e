from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_vdist import init_settings
from pytest_vdist.backends.registry import find_backend, require_devices
from pytest_vdist.implementations.reference import ReferenceImplementation
from pytest_vdist.ranks.messages import WorldSpec
from pytest_vdist.ranks.pool import RankPool

Run = Callable[..., list[Any]]


@pytest.fixture(scope="package")
def _simdev_pool() -> Iterator[RankPool]:
    backend = find_backend("simdev", origin="this test")
    pool = RankPool(backend, require_devices(backend, origin="this test").device_count)
    yield pool
    pool.close()


@pytest.fixture
def run_on_simdev(_simdev_pool: RankPool, tmp_path: Path) -> Run:
    """Return a function that calls another one on ranks, in a world of the reference with the settings given.

    On the simulated accelerator, whatever --vdist-backend says.
    """

    def run(function: Callable[[], Any], world_size: int, **changes: Any) -> list[Any]:
        def body() -> Any:
            implementation = ReferenceImplementation()
            implementation.init(replace(init_settings(f"file://{tmp_path}/world"), **changes))
            try:
                return function()
            finally:
                implementation.destroy()

        return _simdev_pool.run(body, (), {}, world=WorldSpec("simdev"), world_size=world_size, timeout=60.0)

    return run
