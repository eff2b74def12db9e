"""--vdist-shard: the same parts of the tests in every job, about equally many in each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest

from pytest_vdist.options import options_of
from pytest_vdist.options.parsers import Shard


def of_shard(items: Sequence[pytest.Item], shard: Shard) -> list[pytest.Item]:
    """Return the items of one shard, in their order. A test function is in one shard with all its modes.

    The function with the most items goes to the shard that has the fewest, and so on; ties go by name, so
    that the parts depend on nothing but the ids of the tests.
    """
    weights = Counter(_function(item) for item in items)
    loads = [0] * shard.count
    place = {}
    for name, weight in sorted(weights.items(), key=lambda pair: (-pair[1], pair[0])):
        place[name] = loads.index(min(loads))
        loads[place[name]] += weight
    return [item for item in items if place[_function(item)] == shard.number - 1]


def keep_shard(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what belongs to other shards. Certifications do this themselves, before they list tests."""
    options = options_of(config)
    if options.shard is None or options.certify is not None:
        return
    kept = of_shard(items, options.shard)
    chosen = set(map(id, kept))
    others = [item for item in items if id(item) not in chosen]
    if others:
        config.hook.pytest_deselected(items=others)
        items[:] = kept


def _function(item: pytest.Item) -> str:
    return item.nodeid.partition("[")[0]
