"""Devices are leased across processes: nothing twice, nobody starved, nothing kept by the dead."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from pytest_vdist.backends.leases import DeviceLeases, LeaseTimeoutError

HOLDER = """
import sys
from pytest_vdist.backends.leases import DeviceLeases
with DeviceLeases(sys.argv[1], ["0", "1", "2", "3"]).hold(int(sys.argv[2]), timeout=20) as slots:
    print(*slots, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def kind() -> str:
    return f"test-{uuid.uuid4().hex}"


@pytest.fixture
def leases(kind: str) -> DeviceLeases:
    return DeviceLeases(kind, ["0", "1", "2", "3"])


@pytest.fixture
def holders(kind: str) -> Iterator[type[Holder]]:
    Holder.kind = kind
    yield Holder
    Holder.end_all()


class Holder:
    """Another process that holds slots until it is told to let go."""

    kind = ""
    _all: list[Holder] = []  # noqa: RUF012

    def __init__(self, count: int) -> None:
        command = [sys.executable, "-c", HOLDER, self.kind, str(count)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._all.append(self)

    def slots(self) -> list[str]:
        assert self.process.stdout is not None
        return self.process.stdout.readline().split()

    def let_go(self) -> None:
        self.process.communicate("\n", timeout=20)

    @classmethod
    def end_all(cls) -> None:
        for holder in cls._all:
            holder.process.kill()
            holder.process.communicate()
        cls._all.clear()


def test_slots_are_taken_in_order_and_come_back(leases: DeviceLeases) -> None:
    with leases.hold(2, timeout=1) as first, leases.hold(2, timeout=1) as second:
        assert (first, second) == (("0", "1"), ("2", "3"))
    with leases.hold(4, timeout=1) as everything:
        assert everything == ("0", "1", "2", "3")


def test_two_sessions_never_hold_the_same_device(leases: DeviceLeases, holders: type[Holder]) -> None:
    assert holders(2).slots() == ["0", "1"]

    with leases.hold(2, timeout=1) as mine:
        assert mine == ("2", "3")


def test_a_free_preferred_set_is_taken_and_a_busy_one_is_not(leases: DeviceLeases) -> None:
    with leases.hold(1, timeout=1, preferred=[("3",)]) as first:
        assert first == ("3",)
        with leases.hold(2, timeout=1, preferred=[("2", "3"), ("1", "2")]) as second:
            assert second == ("1", "2")
            with leases.hold(1, timeout=1, preferred=[("3",)]) as third:
                assert third == ("0",)


def test_only_the_slots_that_will_do_are_taken(leases: DeviceLeases) -> None:
    first = leases.hold(1, timeout=1, among=["0"])
    second = leases.hold(1, timeout=0.1, among=["0"])

    with first, pytest.raises(LeaseTimeoutError), second:
        pass


def test_who_waits_goes_on_as_soon_as_enough_is_free(leases: DeviceLeases, holders: type[Holder]) -> None:
    holder = holders(3)
    assert len(holder.slots()) == 3
    release = threading.Timer(0.2, holder.let_go)
    release.start()

    with leases.hold(4, timeout=20) as everything:
        assert len(everything) == 4
    release.join()


def test_a_lease_dies_with_its_holder(leases: DeviceLeases, holders: type[Holder]) -> None:
    holder = holders(4)
    assert len(holder.slots()) == 4

    holder.process.send_signal(signal.SIGKILL)

    with leases.hold(4, timeout=20) as everything:
        assert len(everything) == 4


def test_a_run_that_needs_all_devices_is_not_starved_by_small_ones(
    leases: DeviceLeases, holders: type[Holder]
) -> None:
    with leases.hold(1, timeout=1):
        large = holders(4)
        while not _someone_waits(leases):
            pass
        small = holders(1)
    # Slots were free for the small one all the time, but the large one came first.
    assert large.slots() == ["0", "1", "2", "3"]
    large.let_go()
    assert small.slots() == ["0"]


def _someone_waits(leases: DeviceLeases) -> bool:
    """Tell whether another process is collecting slots: then nobody else gets one, though three are free."""
    try:
        with leases.hold(1, timeout=0.05):
            return False
    except LeaseTimeoutError:
        return True


def test_who_gives_up_says_who_holds_the_devices(leases: DeviceLeases, holders: type[Holder]) -> None:
    holder = holders(3)
    holder.slots()

    with pytest.raises(LeaseTimeoutError) as caught, leases.hold(2, timeout=0.1):
        pass

    text = str(caught.value)
    assert text.startswith("not enough of the 4 devices of test-")
    assert f"held by process {holder.process.pid} (" in text
    assert "end the other session, or run fewer at once" in text


def test_a_waiter_that_was_killed_does_not_block_those_behind_it(
    leases: DeviceLeases, holders: type[Holder]
) -> None:
    with leases.hold(1, timeout=1):
        dying = holders(4)
        while not _someone_waits(leases):
            pass
        dying.process.kill()
        dying.process.wait()

        with leases.hold(3, timeout=20) as rest:
            assert rest == ("1", "2", "3")


# ---- runs that share ----


@pytest.fixture
def shared(kind: str) -> DeviceLeases:
    """Lease the same slots to two runs at once."""
    return DeviceLeases(kind, ["0", "1", "2", "3"], runs_per_slot=2)


def test_as_many_runs_as_may_share_a_slot_get_it(shared: DeviceLeases) -> None:
    with shared.hold(4, timeout=1) as first, shared.hold(4, timeout=1) as second:
        assert first == second == ("0", "1", "2", "3")
        with pytest.raises(LeaseTimeoutError), shared.hold(1, timeout=0.1):
            pass
    with shared.hold(1, timeout=1) as again:
        assert again == ("0",)


def test_slots_that_fewer_runs_share_are_taken_first(shared: DeviceLeases) -> None:
    with shared.hold(3, timeout=1), shared.hold(2, timeout=1) as second:
        assert second == ("0", "3")
    with ExitStack() as first, ExitStack() as rest:
        first.enter_context(shared.hold(4, timeout=1))
        assert rest.enter_context(shared.hold(1, timeout=1)) == ("0",)
        first.close()  # what is left is the second share of slot 0
        assert rest.enter_context(shared.hold(1, timeout=1)) == ("1",)


def test_a_preferred_set_is_taken_though_others_share_it_and_first_the_one_that_fewer_share(
    shared: DeviceLeases,
) -> None:
    preferred = [("0", "1"), ("2", "3")]
    with shared.hold(2, timeout=1), shared.hold(2, timeout=1, preferred=preferred) as second:
        assert second == ("2", "3")
        with shared.hold(2, timeout=1, preferred=[("0", "1")]) as third:
            assert third == ("0", "1")
            with shared.hold(2, timeout=1, preferred=[("0", "1")]) as fourth:
                assert fourth == ("2", "3")


def test_a_run_joins_no_more_others_than_it_says(kind: str, shared: DeviceLeases) -> None:
    """Whichever of the shares the others have."""
    three = DeviceLeases(kind, ["0", "1", "2", "3"], runs_per_slot=3)
    with ExitStack() as first, three.hold(4, timeout=1):
        first.enter_context(three.hold(4, timeout=1))
        with pytest.raises(LeaseTimeoutError), shared.hold(1, timeout=0.1):
            pass
        first.close()
        with shared.hold(4, timeout=1) as everything:
            assert len(everything) == 4


def test_who_gives_up_says_who_has_shares_also_after_many_have_looked_at_them(
    leases: DeviceLeases, shared: DeviceLeases
) -> None:
    with shared.hold(1, timeout=1):
        for _ in range(200):  # more than a queue has places
            with leases.hold(1, timeout=1) as other:
                assert other == ("1",)
        with pytest.raises(LeaseTimeoutError, match=f"held by process {os.getpid()} "):
            leases.hold(4, timeout=0.1).__enter__()


@pytest.mark.parametrize("first", ["shares", "does not share"])
def test_a_run_that_shares_and_one_that_does_not_never_have_the_same_slot(
    leases: DeviceLeases, shared: DeviceLeases, first: str
) -> None:
    one, other = (shared, leases) if first == "shares" else (leases, shared)
    with one.hold(3, timeout=1), other.hold(1, timeout=1) as rest:
        assert rest == ("3",)
    with one.hold(1, timeout=1), pytest.raises(LeaseTimeoutError), other.hold(4, timeout=0.1):
        pass


def test_who_waits_for_all_of_a_slot_goes_on_when_the_last_share_is_free(
    leases: DeviceLeases, shared: DeviceLeases
) -> None:
    let_go: list[ExitStack] = []

    def close(stack: ExitStack) -> None:
        let_go.append(stack)
        stack.close()

    with ExitStack() as first, ExitStack() as second:
        for stack in (first, second):
            stack.enter_context(shared.hold(4, timeout=1))
        for delay, stack in ((0.1, second), (0.3, first)):
            threading.Timer(delay, close, [stack]).start()
        with leases.hold(4, timeout=20) as everything:
            assert everything == ("0", "1", "2", "3")
            assert let_go == [second, first]


def test_who_waits_for_a_share_goes_on_as_soon_as_one_is_free(
    shared: DeviceLeases, holders: type[Holder]
) -> None:
    holder = holders(4)  # all of each slot
    assert len(holder.slots()) == 4
    release = threading.Timer(0.2, holder.let_go)
    release.start()
    with shared.hold(2, timeout=20) as slots:
        assert slots == ("0", "1")
    release.join()


def test_more_than_there_are_is_refused(leases: DeviceLeases) -> None:
    with pytest.raises(ValueError, match=r"5 slots of test-.* were asked for, there are 4"):
        leases.hold(5, timeout=1).__enter__()


def test_nothing_is_on_disk(leases: DeviceLeases, kind: str) -> None:
    with leases.hold(4, timeout=1), open("/proc/net/unix", encoding="ascii") as sockets:
        names = [line.split()[-1] for line in sockets if kind in line]

    assert sorted(names) == [f"@pytest-vdist/{os.getuid()}/{kind}/{slot}" for slot in range(4)]
