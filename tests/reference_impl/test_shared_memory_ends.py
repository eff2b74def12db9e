"""Groups that share memory: nothing is left of them."""

from __future__ import annotations

import gc
import os
import signal
from pathlib import Path

import pytest
import torch

from pytest_vdist import DistributedRun, RankDiedError
from pytest_vdist.reference_impl.communicators.shm import connect
from tests.reference_impl.shared_groups import ENVIRONMENT, group_of


def traces(address: str) -> list[str]:
    """Name what shared memory and sockets of this address leave behind where names are."""
    unix = Path("/proc/net/unix").read_text().splitlines()
    return [name for name in os.listdir("/dev/shm") if "vdist" in name] + [
        line.split()[-1] for line in unix if address in line
    ]


@pytest.mark.parametrize("how", ["exit", "crash", "kill"])
def test_nothing_is_left_of_ranks_however_they_end(distributed_run: DistributedRun, how: str) -> None:
    address = f"vdist-{os.getpid()}-{how}"  # other sessions of this machine have sockets too

    def body() -> None:
        connect.ADDRESS = address
        group = group_of()
        group.all_reduce(torch.ones(1 << 20))
        group.send_tensor_dict({"t": torch.ones(1 << 20)})
        group.barrier()
        if how == "kill" and group.rank_in_group == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "crash" and group.rank_in_group == 0:
            os._exit(1)

    before = traces(address)
    if how == "exit":
        distributed_run(body, env=ENVIRONMENT, fresh=True)
    else:
        with pytest.raises(RankDiedError):
            distributed_run(body, env=ENVIRONMENT, fresh=True)
    assert [trace for trace in traces(address) if trace not in before] == []


def test_groups_that_come_and_go_leave_no_files_and_no_memory(distributed_run: DistributedRun) -> None:
    def body() -> list[tuple[int, int]]:
        counts = []
        for _ in range(4):
            for _ in range(3):
                group = group_of()
                group.all_reduce(torch.ones(1 << 16))
                group.send_tensor_dict({"t": torch.ones(1 << 16)})
                group.send_tensor_dict({"t": torch.ones(1 << 18)})
                for _ in range(2):
                    group.recv_tensor_dict()
                group.barrier()
                group.destroy()
            gc.collect()
            maps = Path("/proc/self/maps").read_text()
            mapped = sum(maps.count(f"memfd:vdist-{name}") for name in ("group", "messages", "loan"))
            counts.append((len(os.listdir("/proc/self/fd")), mapped))
        return counts

    for counts in distributed_run(body, env=ENVIRONMENT, fresh=True):
        assert counts[-1][0] <= counts[0][0], counts
        assert [mapped for _, mapped in counts] == [0] * 4
