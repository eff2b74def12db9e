"""How rank processes come to life: the fork server with torch imported, and the store where ranks meet."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import multiprocess
from multiprocess import forkserver

import pytest_vdist
from pytest_vdist.backends.base import DeviceBackend
from pytest_vdist.backends.sharing import place_of, sharing_environment
from pytest_vdist.ranks import _compat, worker
from pytest_vdist.ranks.failures import RanksUnavailableError
from pytest_vdist.ranks.process import RankProcess
from pytest_vdist.ranks.world import Rendezvous

_HOST = "127.0.0.1"
_LOOPBACK_PATIENCE = 5.0
_PRELOAD = [
    "pytest_vdist.ranks.fork_server",
    "torch",
    "torch.distributed",
    "pytest",
    "_pytest.assertion.rewrite",
    "pytest_vdist.ranks.worker",
]
_LONGEST_FOLDER = 60  # the path of a socket may have 107 bytes, and multiprocess adds up to 40

# One thread per rank: a fork server that had started OpenMP threads would leave its children hanging, and
# ranks share the machine's cores anyway. Gloo must not choose an interface by the host's name. Inductor must
# not start processes of its own in every rank. torch's stores look up the name of every peer, 127.0.0.1 too,
# in new groups as well, and a name server that does not answer would cost 5 s each time (resolv.conf(5)).
_PINNED = {
    "RES_OPTIONS": "timeout:1",
    "OMP_NUM_THREADS": "1",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "TORCHINDUCTOR_COMPILE_THREADS": "1",
}
_CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"


class Launcher:
    """Starts processes for one session, and serves the store of all its worlds."""

    places = None

    def __init__(
        self, backend: DeviceBackend, *, host: str = _HOST, interface: str = "lo", preload: Sequence[str] = ()
    ) -> None:
        """Start nothing yet. Stores are served on `host`; gloo talks over `interface`, or chooses for "".

        Ranks that are forked find the modules of `preload` imported, if this process had no fork server yet.
        """
        device_module = backend.rank_setup.partition(":")[0]
        self._backend = backend
        self._host = host
        self._pinned = {**_PINNED, **({"GLOO_SOCKET_IFNAME": interface} if interface else {})}
        self._context: Any = multiprocess.get_context(backend.start_method)
        self._preload = [*_PRELOAD, *([device_module] if device_module else []), *preload]
        self._store: Any = None

    def endpoint(self) -> tuple[str, int]:
        """Return host and port of the store that serves all worlds made by torch."""
        if self._store is None:
            self._store = self.new_store()
        return self._host, int(self._store.port)

    def new_store(self) -> Any:
        """Serve a store on a free port of the host for as long as the returned object lives.

        The socket is bound before anyone learns the port, so no other session can take it. It is an IPv4
        socket, because torch looks the peers' names up and `::ffff:127.0.0.1` can take seconds to resolve.
        """
        if self._host == _HOST:
            _require_loopback()
        listener = socket.create_server((self._host if self._host == _HOST else "", 0))
        port = listener.getsockname()[1]
        return _compat.TCPStore(
            self._host, port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach()
        )

    def start(self, rank: int, world_size: int, devices: Sequence[str]) -> RankProcess:
        """Start a rank on this machine; it sees `devices` as 0 and on, or all if none are named."""
        host, port = self.endpoint()
        at = place_of(rank, world_size, len(devices) or world_size)
        rendezvous = Rendezvous(host, port, rank, world_size, at.local_rank, at.local_world_size, at.node)
        return self.start_at(rendezvous, devices)

    def start_at(self, rendezvous: Rendezvous, devices: Sequence[str] = ()) -> RankProcess:
        """Start a rank that has these numbers."""
        environment = self.environment()
        if self._backend.visible_devices_variable and devices:
            environment[self._backend.visible_devices_variable] = ",".join(devices)
        if devices and rendezvous.world_size > len(devices):
            environment |= sharing_environment(self._backend, rendezvous.node)
        backend = self._backend
        assignment = worker.Assignment(rendezvous, backend.device_type, environment, backend.rank_setup)
        return RankProcess(self._context, assignment)

    def environment(self) -> dict[str, str]:
        """Return the environment that a rank starts with: the controller's, and what ranks need on top."""
        pinned = {**self._pinned, _CACHE_VARIABLE: _compiler_cache()}
        pinned = {name: value for name, value in pinned.items() if name not in os.environ}
        return {**pinned, **os.environ, **self._backend.rank_environment}

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Hold while processes are started: variables that torch reads on import must be there already."""
        with _temporarily(self.environment()), _compat.hidden_main_module():
            if self._backend.start_method == "forkserver":
                self._context.set_forkserver_preload(self._preload)
                with _temporarily({"PYTHONPATH": _python_path()}), _short_temporary_folder():
                    forkserver.ensure_running()
            yield


def _require_loopback() -> None:
    """Raise RanksUnavailableError where ranks can't connect; torch would try for five minutes."""
    try:
        with socket.create_server((_HOST, 0)) as listener:
            socket.create_connection(listener.getsockname(), timeout=_LOOPBACK_PATIENCE).close()
    except OSError as error:
        raise RanksUnavailableError(
            f"ranks on this machine meet at {_HOST}, where no connection can be made: {error}; "
            "bring the loopback up (ip link set lo up), look at the limit of open files (ulimit -n), "
            "and ask vdist doctor",
            [],
        ) from None


def _compiler_cache() -> str:
    """Return the folder in which the ranks of this session, and no other, share what inductor compiles.

    What a cache keeps holds results of operators' fake implementations: one from before a vendor's repair
    would make the suites judge the old code.
    """
    with _short_temporary_folder():
        return os.path.join(_compat.session_folder(), "inductor")


@contextmanager
def _short_temporary_folder() -> Iterator[None]:
    """Let the fork server's socket be made in /tmp where the usual folder's path is too long for a socket."""
    usual = tempfile.tempdir
    if len(os.fsencode(tempfile.gettempdir())) > _LONGEST_FOLDER:
        tempfile.tempdir = "/tmp"  # noqa: S108 - multiprocess makes a folder of its own in it
    try:
        yield
    finally:
        tempfile.tempdir = usual


def _python_path() -> str:
    package_root = str(Path(pytest_vdist.__file__).parent.parent)
    inherited = os.environ.get("PYTHONPATH")
    return os.pathsep.join([package_root, inherited]) if inherited else package_root


@contextmanager
def _temporarily(environment: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        yield
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)
