from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from pytest_vdist import DistributedRun
from pytest_vdist.backends.registry import require_devices
from pytest_vdist.backends.simdev import BACKEND
from pytest_vdist.ranks.messages import WorldSpec
from pytest_vdist.ranks.pool import RankPool


@pytest.fixture(scope="session")
def distributed_run() -> Iterator[DistributedRun]:
    """Run functions on simdev whatever --vdist-backend says; four ranks, for one team to serve most tests."""
    pool = RankPool(BACKEND, require_devices(BACKEND, origin="these tests").device_count)

    def run(
        fn: Callable[..., Any],
        /,
        *args: Any,
        world_size: int = 4,
        timeout: float | None = None,
        init_process_group: bool = True,
        fresh: bool = False,
        env: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> list[Any]:
        group_backend = BACKEND.process_group_backend if init_process_group else None
        world = WorldSpec(BACKEND.device_type, process_group_backend=group_backend)
        return pool.run(
            fn,
            args,
            kwargs,
            world=world,
            world_size=world_size,
            timeout=timeout or 30.0,
            fresh=fresh,
            env=env,
        )

    yield run
    pool.close()
