"""Which of the collected tests run: those of --vdist-profile, and of them the part of --vdist-shard.

Certifications do this themselves, before they list tests.
"""

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


def keep_selected(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what counts for none of the profiles, and what belongs to other shards."""
    options = options_of(config)
    if options.certify is not None:
        return
    if options.profiles is not None:
        _keep(config, items, of_profiles(items, options.profiles))
    if options.shard is not None:
        _keep(config, items, of_shard(items, options.shard))


def of_profiles(items: Sequence[pytest.Item], profiles: Sequence[str]) -> list[pytest.Item]:
    """Return the items that count for any of the profiles; tests of no requirement count for none."""
    # The registry is read when profiles are named, not by a plugin that is installed but unused.
    from pytest_vdist.certificate.verdict import profiles_of  # noqa: PLC0415
    from pytest_vdist.certification.recorder import expected_of  # noqa: PLC0415

    wanted = set(profiles)
    known = [(item, expected_of(item)) for item in items]
    return [
        item
        for item, expected in known
        if expected.requirements and wanted & profiles_of(expected.requirements, expected.mode)
    ]


def _keep(config: pytest.Config, items: list[pytest.Item], kept: list[pytest.Item]) -> None:
    chosen = set(map(id, kept))
    others = [item for item in items if id(item) not in chosen]
    if others:
        config.hook.pytest_deselected(items=others)
        items[:] = kept


def _function(item: pytest.Item) -> str:
    return item.nodeid.partition("[")[0]
