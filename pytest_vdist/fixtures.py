"""The fixtures: `distributed_run` and its family. Nothing heavy is imported before the first one is used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from pytest_vdist import nodes, repeats, terminal
from pytest_vdist.backends.registry import availability
from pytest_vdist.mutation.control_run import stand_in_of
from pytest_vdist.options import EFFORTS, GroupLimits, Options, options_of
from pytest_vdist.run_log import run_log_of

if TYPE_CHECKING:
    import torch

    from pytest_vdist.backends.base import DeviceBackend
    from pytest_vdist.implementations.protocol import Capabilities
    from pytest_vdist.implementations.spec import ImplementationSpec
    from pytest_vdist.program_run import ProgramRun, ProgramSearch
    from pytest_vdist.programs.drawing import Scope
    from pytest_vdist.ranks.messages import WorldSpec
    from pytest_vdist.ranks.outcomes import RankOutcome
    from pytest_vdist.ranks.pool import RankPool
    from pytest_vdist.torchrun.run import TorchrunRun

PROGRAMS_FOR_A_COMPILED_ONE = 10
"""To compile a program takes as long as to run that many, or longer."""


class DistributedRun(Protocol):
    """Type of the fixture `distributed_run`."""

    def __call__(
        self,
        fn: Callable[..., Any],
        /,
        *args: Any,
        world_size: int = 2,
        timeout: float | None = None,
        init_process_group: bool = True,
        fresh: bool = False,
        env: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> list[Any]:
        """Run `fn(*args, **kwargs)` on `world_size` ranks and return the results, by rank.

        `fn` may be a closure, a lambda or a local function; within it `current_rank()` tells rank, world size
        and device. Tensors may be arguments and results; results arrive on the CPU. `timeout` is the deadline
        in seconds (default: --vdist-timeout). Unless `init_process_group` is False, torch's default process
        group of the chosen backend stands. `fresh` takes new processes, and ends them after. `env` adds
        environment variables. Raises DistributedRunError if a rank raised, died or did not finish.
        """


class OutcomesRun(Protocol):
    """Type of the fixture `outcomes_run`."""

    def __call__(
        self,
        fn: Callable[..., Any],
        /,
        *args: Any,
        world_size: int = 2,
        timeout: float | None = None,
        env: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> list[RankOutcome]:
        """Run `fn(*args, **kwargs)` on ranks that may fail, and return how each of them ended, by rank.

        There is no default process group. A rank that raises, dies or is stuck does not shorten the time of
        the others; the run ends when all have ended, or at the deadline. Otherwise as `distributed_run`.
        """


class CoordinatorRun(Protocol):
    """Type of the fixture `coordinator_run`."""

    def __call__(
        self,
        fn: Callable[..., Any],
        /,
        *args: Any,
        world_size: int = 2,
        group_ranks: list[list[int]] | None = None,
        timeout: float | None = None,
        env: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> list[Any]:
        """Run `fn(coordinator, *args, **kwargs)` on `world_size` ranks; the results are by (global) rank.

        `coordinator` is the calling rank's, from the implementation under test (--vdist-impl), for the groups
        of `group_ranks`, which must name every rank; None stands for one group of all ranks. It is made once
        and kept for later runs, so `fn` must not destroy it. Otherwise as `distributed_run`.
        """


@dataclass(frozen=True)
class _Runner:
    """What both fixtures share: the ranks of a backend, and the session's deadline."""

    pool: RankPool
    device: DeviceBackend
    default_timeout: float
    limits: GroupLimits

    def run(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        *,
        world: WorldSpec,
        world_size: int,
        timeout: float | None,
        fresh: bool,
        env: Mapping[str, str] | None,
    ) -> list[Any]:
        __tracebackhide__ = True
        deadline = self.default_timeout if timeout is None else timeout
        return self.pool.run(
            fn,
            args,
            kwargs,
            world=self.limited(world),
            world_size=world_size,
            timeout=deadline,
            fresh=fresh,
            env=env,
        )

    def limited(self, world: WorldSpec) -> WorldSpec:
        """Give the limits of the options to a world."""
        return replace(world, timeout=self.limits.timeout, cpu_timeout=self.limits.cpu_timeout)


@pytest.fixture(scope="session")
def distributed_run(backend: str, _rank_pools: Callable[[str], _Runner]) -> DistributedRun:
    """Run a function on N warm rank processes and return their results by rank; see `DistributedRun`."""
    from pytest_vdist.ranks.messages import WorldSpec  # noqa: PLC0415 - imports torch, which an unused plugin must not

    runner = _rank_pools(backend)

    def run(
        fn: Callable[..., Any],
        /,
        *args: Any,
        world_size: int = 2,
        timeout: float | None = None,
        init_process_group: bool = True,
        fresh: bool = False,
        env: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> list[Any]:
        __tracebackhide__ = True
        group_backend = runner.device.process_group_backend if init_process_group else None
        world = WorldSpec(runner.device.device_type, process_group_backend=group_backend)
        return runner.run(
            fn, args, kwargs, world=world, world_size=world_size, timeout=timeout, fresh=fresh, env=env
        )

    return run


@pytest.fixture(scope="session")
def outcomes_run(backend: str, _rank_pools: Callable[[str], _Runner]) -> OutcomesRun:
    """Run a function on ranks that may fail and return how each of them ended; see `OutcomesRun`."""
    from pytest_vdist.ranks.messages import WorldSpec  # noqa: PLC0415 - imports torch, which an unused plugin must not

    runner = _rank_pools(backend)

    def run(
        fn: Callable[..., Any],
        /,
        *args: Any,
        world_size: int = 2,
        timeout: float | None = None,
        env: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> list[RankOutcome]:
        return runner.pool.outcomes(
            fn,
            args,
            kwargs,
            world=runner.limited(WorldSpec(runner.device.device_type)),
            world_size=world_size,
            timeout=runner.default_timeout if timeout is None else timeout,
            env=env,
        )

    return run


@pytest.fixture(scope="session")
def coordinator_run(
    backend: str,
    split_group: bool,
    implementation: ImplementationSpec,
    _rank_pools: Callable[[str], _Runner],
    request: pytest.FixtureRequest,
) -> CoordinatorRun:
    """Run a function with the coordinator of the implementation under test; see `CoordinatorRun`."""
    from pytest_vdist.ranks.messages import WorldSpec  # noqa: PLC0415 - imports torch, which an unused plugin must not
    from pytest_vdist.ranks.world import call_with_coordinator  # noqa: PLC0415

    runner = _rank_pools(backend)
    device_type = runner.device.device_type

    def run(
        fn: Callable[..., Any],
        /,
        *args: Any,
        world_size: int = 2,
        group_ranks: list[list[int]] | None = None,
        timeout: float | None = None,
        env: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> list[Any]:
        __tracebackhide__ = True
        spec = stand_in_of(request.config) or implementation
        world = WorldSpec(device_type, implementation=spec, split_group=split_group)
        return runner.run(
            call_with_coordinator,
            (fn, group_ranks, *args),
            kwargs,
            world=world,
            world_size=world_size,
            timeout=timeout,
            fresh=False,
            env=env,
        )

    return run


@pytest.fixture(scope="session")
def torchrun_run(backend: str, request: pytest.FixtureRequest) -> TorchrunRun:
    """Run a script under torchrun and return what every rank has written; see `TorchrunRun`."""
    from pytest_vdist.torchrun.run import TorchrunRunner  # noqa: PLC0415 - an unused plugin must not load it

    options = options_of(request.config)
    device = options.backend_named(backend)
    return TorchrunRunner(device, availability(device).device_count, options.timeout)


@pytest.fixture(scope="session")
def program_run(
    backend: str,
    split_group: bool,
    implementation: ImplementationSpec,
    coordinator_run: CoordinatorRun,
    request: pytest.FixtureRequest,
) -> ProgramRun:
    """Run a multi-rank program and compare what every rank gets with the oracle; see `ProgramRun`."""
    import hypothesis  # noqa: PLC0415 - an unused plugin must not import it

    from pytest_vdist.program_run import ProgramRun  # noqa: PLC0415
    from pytest_vdist.programs.script import Setting  # noqa: PLC0415

    options = options_of(request.config)
    device = options.backend_named(backend)
    accumulate = implementation.load().capabilities(device.device_type).accumulate
    setting = Setting(implementation.target, device.device_type, device.rank_setup, split_group, accumulate)
    return ProgramRun(coordinator_run, setting, options.timeout, hypothesis.reject)


@pytest.fixture(scope="session")
def program_scope(
    reduction_dtypes: list[torch.dtype], movement_dtypes: list[torch.dtype], capabilities: Capabilities
) -> Callable[[int], Scope]:
    """Give the scope of programs that implementation and device declare, for a world size."""
    from pytest_vdist.judge import dtype_name  # noqa: PLC0415 - imports torch, which an unused plugin must not
    from pytest_vdist.programs.drawing import Scope  # noqa: PLC0415

    def scope(world_size: int) -> Scope:
        return Scope(
            world_size,
            tuple(map(dtype_name, reduction_dtypes)),
            tuple(map(dtype_name, movement_dtypes)),
            tuple(capabilities.unsupported),
        )

    return scope


@pytest.fixture(scope="session")
def program_search(
    program_run: ProgramRun, program_scope: Callable[[int], Scope], request: pytest.FixtureRequest
) -> ProgramSearch:
    """Run random programs, as many as --vdist-effort says, until one fails; see `ProgramSearch`."""
    from pytest_vdist.program_run import search  # noqa: PLC0415 - imports hypothesis, which an unused plugin must not
    from pytest_vdist.programs.compiled import is_compilable  # noqa: PLC0415
    from pytest_vdist.programs.model import Program  # noqa: PLC0415

    options = options_of(request.config)

    def run(*, world_size: int, compile_mode: str | None = None) -> None:
        __tracebackhide__ = True
        run_one = partial(program_run, compile_mode=compile_mode)
        if options.replay is None:
            scope, count = program_scope(world_size), EFFORTS[options.effort]
            if compile_mode is not None:
                scope, count = scope.of_collectives(), count // PROGRAMS_FOR_A_COMPILED_ONE
            search(run_one, scope, count, options.seed)
            return
        program = Program.from_json(options.replay)
        if program.world_size != world_size:
            pytest.skip(f"not run: the program of --vdist-replay is one of {program.world_size} ranks")
        if compile_mode is not None and not is_compilable(program):
            pytest.skip("not run: the program of --vdist-replay is not one of collectives alone")
        run_one(program)

    return run


@pytest.fixture(scope="session")
def implementation(request: pytest.FixtureRequest) -> ImplementationSpec:
    """Give the implementation under test; `implementation.load()` in a rank makes it, not yet initialised."""
    return options_of(request.config).implementation


@pytest.fixture(scope="session")
def capabilities(
    backend: str, implementation: ImplementationSpec, request: pytest.FixtureRequest
) -> Capabilities:
    """Give what the implementation under test declares for the device."""
    device = options_of(request.config).backend_named(backend)
    return implementation.load().capabilities(device.device_type)


@pytest.fixture(scope="session")
def reduction_dtypes(
    backend: str, capabilities: Capabilities, request: pytest.FixtureRequest
) -> list[torch.dtype]:
    """Give the dtypes that implementation and device backend declare for sums."""
    declared = capabilities.reduction_dtypes
    return _dtypes(declared or options_of(request.config).backend_named(backend).reduction_dtypes)


@pytest.fixture(scope="session")
def movement_dtypes(
    backend: str, capabilities: Capabilities, request: pytest.FixtureRequest
) -> list[torch.dtype]:
    """Give the dtypes that implementation and device backend declare for moving data."""
    declared = capabilities.movement_dtypes
    return _dtypes(declared or options_of(request.config).backend_named(backend).movement_dtypes)


def _dtypes(names: tuple[str, ...]) -> list[torch.dtype]:
    import torch  # noqa: PLC0415 - an unused plugin must not import it

    return [getattr(torch, name) for name in names]


def _preload(options: Options, device_type: str) -> tuple[str, ...]:
    """Return what ranks import once for all. A session that names no implementation need not load one."""
    if not options.is_given("implementation"):
        return ()
    return options.implementation.load().capabilities(device_type).preload


@pytest.fixture(scope="session")
def _rank_pools(request: pytest.FixtureRequest) -> Iterator[Callable[[str], _Runner]]:
    from pytest_vdist.ranks.pool import RankPool  # noqa: PLC0415 - imports torch, which an unused plugin must not

    config = request.config
    options = options_of(config)
    runners: dict[str, _Runner] = {}

    def runner_of(backend: str) -> _Runner:
        if backend not in runners:
            device = options.backend_named(backend)
            pool = RankPool(
                device,
                availability(device).device_count,
                notify=lambda text: terminal.notify(config, text),
                log_run=run_log_of(config).add,
                ask=lambda text: terminal.ask(config, text),
                post_mortem=config.getoption("usepdb"),
                launcher=nodes.launcher_of(config, backend),
                preload=_preload(options, device.device_type),
            )
            runners[backend] = _Runner(pool, device, options.timeout, options.limits)
            repeats.on_renewal(config, pool.close)
        return runners[backend]

    yield runner_of
    for runner in runners.values():
        runner.pool.close()
