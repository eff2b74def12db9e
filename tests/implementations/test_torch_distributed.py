from __future__ import annotations

import pytest
import torch.distributed as dist

from pytest_vdist.implementations.protocol import InitSettings
from pytest_vdist.implementations.spec import ImplementationSpec
from pytest_vdist.implementations.torch_defects import known_defects
from pytest_vdist.implementations.torch_distributed import TorchDistributed, TorchGroup

HIDDEN = """
from pytest_vdist import Capabilities, ImplementationSpec

class HidesGroups:
    name = "hides groups"

    def __init__(self):
        self.torch = ImplementationSpec.resolve("torch", "here").load()
        self.init, self.destroy = self.torch.init, self.torch.destroy

    def capabilities(self, device_type):
        return Capabilities(unsupported=self.lacks)

    def coordinator(self, group_ranks, *, name, **options):
        group = self.torch.coordinator(group_ranks, name=name)
        del group.device_group
        return group

class Silent(HidesGroups):
    lacks = {}

class Declared(HidesGroups):
    lacks = {"process_groups": "its transport is its own"}
"""


def settings(**changes: object) -> InitSettings:
    return InitSettings(rank=0, world_size=1, local_rank=0, device_type="cpu", **changes)  # type: ignore[arg-type]


def test_it_has_a_name_of_its_own_beside_the_reference() -> None:
    implementation = ImplementationSpec.resolve("torch", "the command line").load()
    assert implementation.name == "torch"
    assert isinstance(implementation, TorchDistributed)


def test_what_torch_has_no_call_for_is_declared_and_refused_with_the_reason() -> None:
    declared = dict(TorchDistributed().capabilities("cpu").unsupported)
    declared.pop("split_group", None)
    assert sorted(declared) == [
        "all_gatherv",
        "broadcast_tensor_dict",
        "isend_object",
        "isend_tensor_dict",
        "reduce_scatterv",
        "send_tensor_dict",
    ]
    for operation, reason in declared.items():
        with pytest.raises(NotImplementedError, match=f"^{operation}: {reason}$"):
            getattr(TorchGroup, operation)(None)


def test_what_torch_gets_wrong_is_declared_by_the_reference_and_not_by_torch() -> None:
    reference = ImplementationSpec.resolve("reference", "here").load().capabilities("cpu").unsupported
    assert set(known_defects("cpu")) <= set(reference)
    assert set(known_defects("cpu")) & set(TorchDistributed().capabilities("cpu").unsupported) == set()


def test_there_is_no_coordinator_before_the_world() -> None:
    with pytest.raises(RuntimeError, match=r"torch.distributed is not initialised: call init\(\) first"):
        TorchDistributed().coordinator([[0]], name="early")


def test_a_default_group_of_the_caller_is_kept_and_left() -> None:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
    try:
        own = dist.group.WORLD
        world = TorchDistributed()
        world.init(settings(timeout=77.0))
        group = world.coordinator([[0]], name="only")
        assert (group.ranks, group.rank_in_group, group.first_rank, group.next_rank) == ([0], 0, 0, 0)
        group.destroy()
        group.destroy()
        world.destroy()
        assert dist.group.WORLD is own
    finally:
        dist.destroy_process_group()


@pytest.mark.usefixtures("plain_sessions")
def test_the_suites_judge_torch_itself(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess(
        "-q",
        "-p",
        "no:cacheprovider",
        "--vdist-backend=cpu",
        "--vdist-impl=torch",
        "--vdist-world-sizes=2",
        "--pyargs",
        "pytest_vdist.suites.objects",
        "pytest_vdist.suites.process_groups",
        "-k",
        "test_send_object or TestSend or test_ranks or completed or operations_are_done or unsupported",
    )
    assert result.ret == 1
    result.stdout.fnmatch_lines(["FAILED *test_handles_say_that_operations_are_done*"])
    assert result.parseoutcomes()["failed"] == 1
    assert result.parseoutcomes()["passed"] > 2


@pytest.mark.usefixtures("plain_sessions")
@pytest.mark.parametrize(
    ("factory", "outcomes", "line"),
    [
        ("Declared", {"skipped": 2}, "*SKIPPED*unsupported: process_groups: its transport is its own*"),
        ("Silent", {"failed": 2}, "*LookupError: the coordinator shows no device_group*"),
    ],
)
def test_groups_that_are_hidden_are_declared_or_missed(
    pytester: pytest.Pytester, factory: str, outcomes: dict[str, int], line: str
) -> None:
    pytester.makepyfile(hidden=HIDDEN)
    result = pytester.runpytest_subprocess(
        *("-rs", "-p", "no:cacheprovider", "--vdist-backend=cpu", "--vdist-world-sizes=1"),
        *(f"--vdist-impl=hidden.py:{factory}", "--pyargs", "pytest_vdist.suites.process_groups.test_ranks"),
    )
    result.stdout.fnmatch_lines([line])
    result.assert_outcomes(**outcomes)
