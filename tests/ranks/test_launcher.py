"""With what ranks start, and what a session says where this machine can't serve them."""

from __future__ import annotations

import os
import socket

import pytest

from pytest_vdist import DistributedRun, RanksUnavailableError
from pytest_vdist.backends.registry import find_backend
from pytest_vdist.ranks.launcher import Launcher


def test_ranks_do_not_wait_long_for_name_servers(
    distributed_run: DistributedRun, pytester: pytest.Pytester
) -> None:
    def options() -> str | None:
        return os.environ.get("RES_OPTIONS")

    assert distributed_run(options) == ["timeout:1"] * 2
    pytester.makepyfile(
        """
        import os

        def test_own(distributed_run):
            assert distributed_run(lambda: os.environ["RES_OPTIONS"]) == ["timeout:7"] * 2
        """
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RES_OPTIONS", "timeout:7")
        pytester.runpytest_subprocess().assert_outcomes(passed=1)


def test_a_machine_without_loopback_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(socket, "create_connection", refuse)

    with pytest.raises(RanksUnavailableError) as caught:
        Launcher(find_backend("cpu", origin="the test")).endpoint()

    assert str(caught.value).splitlines()[0] == (
        "ranks on this machine meet at 127.0.0.1, where no connection can be made: "
        "[Errno 101] Network is unreachable; bring the loopback up (ip link set lo up), "
        "look at the limit of open files (ulimit -n), and ask vdist doctor"
    )
