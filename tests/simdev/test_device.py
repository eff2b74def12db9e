"""The simulated device as torch sees it: memory, views, copies, random numbers, streams and events."""

from __future__ import annotations

import importlib
import io
from typing import Any

import pytest
import torch

from pytest_vdist import DistributedRun, current_rank


def on_one_rank(distributed_run: DistributedRun, body: Any) -> Any:
    """Run a function on a rank that sees four devices."""
    return distributed_run(body, init_process_group=False)[0]


def test_torch_takes_the_device_for_its_accelerator(distributed_run: DistributedRun) -> None:
    def body() -> tuple[Any, ...]:
        accelerator = torch.accelerator.current_accelerator()
        return (
            str(accelerator),
            torch.accelerator.device_count(),
            torch.accelerator.current_device_index(),
            str(current_rank().device),
            torch.get_device_module("simdev").device_count(),
        )

    assert distributed_run(body, world_size=2) == [
        ("simdev", 2, 0, "simdev:0", 2),
        ("simdev", 2, 1, "simdev:1", 2),
    ]


def test_each_tensor_is_on_the_device_that_was_asked_for(distributed_run: DistributedRun) -> None:
    def body() -> list[str]:
        module = torch.get_device_module("simdev")
        module.set_device(2)
        with module.device(3):
            inside = torch.empty(1, device="simdev")
        tensors = [inside, torch.empty(1, device="simdev"), torch.empty(1, device="simdev:1")]
        derived = [tensors[2] + 1, tensors[2][:0], tensors[2].to("simdev:0"), tensors[2].cpu()]
        return [str(tensor.device) for tensor in (*tensors, *derived)]

    assert on_one_rank(distributed_run, body) == [
        *("simdev:3", "simdev:2", "simdev:1"),
        *("simdev:1", "simdev:1", "simdev:0", "cpu"),
    ]


def test_a_device_that_does_not_exist_is_refused(distributed_run: DistributedRun) -> None:
    def body() -> list[str]:
        texts = []
        for act in (
            lambda: torch.empty(1, device="simdev:4"),
            lambda: torch.accelerator.set_device_index(9),
        ):
            try:
                act()
            except RuntimeError as error:
                texts.append(str(error).splitlines()[0])
        return texts

    assert on_one_rank(distributed_run, body) == [
        f"simdev:{index} does not exist: this process has 4 devices; SIMDEV_COUNT and SIMDEV_VISIBLE_DEVICES "
        "set the number"
        for index in (4, 9)
    ]


def test_views_share_memory_and_keep_their_strides(distributed_run: DistributedRun) -> None:
    def body() -> dict[str, Any]:
        base = torch.zeros(4, 6, device="simdev")
        views = {
            "transposed": base.t(),
            "column": base[:, 2],
            "steps": base[1:, ::3],
            "unfolded": base.unfold(1, 2, 2),
            "complex": torch.view_as_complex(base.view(4, 3, 2)),
            "bytes": base.view(torch.uint8),
            "chunk": base.chunk(2)[1],
            "expanded": base[0].expand(3, 6),
        }
        strides = {name: view.stride() for name, view in views.items()}
        shares = {
            name: view.untyped_storage().data_ptr() == base.untyped_storage().data_ptr()
            for name, view in views.items()
        }
        base.t()[3] = 7
        return {"strides": strides, "shares": shares, "base": base}

    seen = on_one_rank(distributed_run, body)

    expected = torch.zeros(4, 6)
    assert seen["strides"] == {
        "transposed": expected.t().stride(),
        "column": expected[:, 2].stride(),
        "steps": expected[1:, ::3].stride(),
        "unfolded": expected.unfold(1, 2, 2).stride(),
        "complex": (3, 1),
        "bytes": expected.view(torch.uint8).stride(),
        "chunk": expected.chunk(2)[1].stride(),
        "expanded": (0, 1),
    }
    assert all(seen["shares"].values()), seen["shares"]
    expected[:, 3] = 7
    assert torch.equal(seen["base"], expected)


def test_operators_give_what_they_give_on_the_cpu(distributed_run: DistributedRun) -> None:
    def compute(device: str) -> list[torch.Tensor]:
        x = torch.arange(24.0, device=device).reshape(4, 6)
        weight = x[:, ::2].t().clone().requires_grad_()
        (x.t() @ weight.t()).square().mean().backward()  # type: ignore[no-untyped-call]
        assert weight.grad is not None
        y = x.clone()
        y[:, ::2].mul_(3)
        y.index_put_((torch.tensor([0, 2]),), torch.tensor(-1.0, device=device))
        z = torch.complex(x, -x).conj().t()
        return [
            *(weight.grad, y, x.sort(descending=True).values, torch.cat([x, y], 1), x.bfloat16().float()),
            *(z.resolve_conj(), torch.zeros(0, device=device).sum(), x.new_full((2,), 3)),
            x.clone().resize_(30)[:24],
        ]

    def body() -> list[torch.Tensor]:
        return compute("simdev")

    for actual, expected in zip(on_one_rank(distributed_run, body), compute("cpu"), strict=True):
        assert torch.equal(actual, expected)


def test_copies_keep_values_across_devices_dtypes_and_strides(distributed_run: DistributedRun) -> None:
    def body() -> list[torch.Tensor]:
        source = torch.arange(12, dtype=torch.int16).reshape(3, 4)
        target = torch.full((4, 6), -1.0, dtype=torch.float64, device="simdev:1")
        target[:, ::2].copy_(source.t())
        other = torch.empty(4, 6, device="simdev:3")
        other.copy_(target)
        broadcast = torch.empty(2, 3, device="simdev").copy_(torch.tensor([1.0, 2.0, 3.0]))
        conjugate = torch.tensor([1 + 2j], device="simdev").conj().cpu()
        return [target, other, broadcast, conjugate.resolve_conj()]

    target, other, broadcast, conjugate = on_one_rank(distributed_run, body)

    expected = torch.full((4, 6), -1.0, dtype=torch.float64)
    expected[:, ::2] = torch.arange(12).reshape(3, 4).t()
    assert torch.equal(target, expected)
    assert torch.equal(other, expected.float())
    assert torch.equal(broadcast, torch.tensor([[1.0, 2.0, 3.0]] * 2))
    assert torch.equal(conjugate, torch.tensor([1 - 2j]))


def test_tensors_on_different_devices_do_not_mix(distributed_run: DistributedRun) -> None:
    def body() -> list[str]:
        here, there, host = (torch.ones(2, device=place) for place in ("simdev:0", "simdev:1", "cpu"))
        texts = []
        for operands in ((here, there), (here, host), (host, here)):
            for operator in (torch.add, torch.dot, lambda a, b: torch.cat([a, b])):
                try:
                    operator(*operands)
                    texts.append("no error")
                except RuntimeError as error:
                    texts.append(str(error))
        return texts

    texts = on_one_rank(distributed_run, body)
    assert [text for text in texts if "device" not in text] == []


def test_each_device_draws_its_own_random_numbers(distributed_run: DistributedRun) -> None:
    def body() -> dict[str, Any]:
        module = torch.get_device_module("simdev")
        torch.manual_seed(1)
        host = torch.rand(3)
        torch.manual_seed(1)
        first, second = torch.rand(3, device="simdev:0"), torch.rand(3, device="simdev:1")
        host_after = torch.rand(3)
        state = module.get_rng_state("simdev:1")
        numbers = torch.randn(3, device="simdev:1"), torch.randperm(9, device="simdev:1")
        module.set_rng_state(state, "simdev:1")
        again = torch.randn(3, device="simdev:1"), torch.randperm(9, device="simdev:1")
        own = torch.Generator("simdev:1").manual_seed(5)
        drawn = torch.rand(3, device="simdev:1", generator=own)
        own.manual_seed(5)
        return {
            "host": (host, host_after),
            "devices": (first, second),
            "state": (numbers, again),
            "generator": (drawn, torch.rand(3, device="simdev:1", generator=own)),
            "device of generator": str(own.device),
        }

    seen = on_one_rank(distributed_run, body)

    assert torch.equal(*seen["host"]), "drawing on the device must not move the CPU's generator"
    assert torch.equal(*seen["devices"]), "one seed, one sequence on each device"
    assert all(torch.equal(one, other) for one, other in zip(*seen["state"], strict=True))
    assert torch.equal(*seen["generator"])
    assert seen["device of generator"] == "simdev:1"


def test_streams_and_events_are_those_of_a_device_that_is_always_done(
    distributed_run: DistributedRun,
) -> None:
    def body() -> dict[str, Any]:
        default = torch.accelerator.current_stream()
        stream = torch.Stream("simdev")
        with stream:
            inside = torch.accelerator.current_stream()
        first, second = (torch.Event("simdev", enable_timing=True) for _ in range(2))
        first.record(stream)
        second.record(stream)
        stream.wait_event(first)
        stream.synchronize()
        torch.accelerator.synchronize()
        return {
            "within": inside == stream and inside != default,
            "after": torch.accelerator.current_stream() == default,
            "done": stream.query() and second.query(),
            "elapsed": first.elapsed_time(second) >= 0,
        }

    assert on_one_rank(distributed_run, body) == dict.fromkeys(("within", "after", "done", "elapsed"), True)


def test_memory_is_counted_for_each_device_and_given_back(distributed_run: DistributedRun) -> None:
    def body() -> list[int]:
        before = torch.accelerator.memory_allocated(1)
        tensor = torch.empty(100, dtype=torch.float32, device="simdev:1")
        held = torch.accelerator.memory_allocated(1)
        view = tensor[:10]
        del tensor
        viewed = torch.accelerator.memory_allocated(1)
        del view
        torch.accelerator.empty_cache()
        return [count - before for count in (held, viewed, torch.accelerator.memory_allocated(1))]

    assert on_one_rank(distributed_run, body) == [400, 400, 0]


def test_tensors_are_saved_and_loaded_with_their_device(distributed_run: DistributedRun) -> None:
    def body() -> tuple[str, str, torch.Tensor]:
        file = io.BytesIO()
        torch.save(torch.arange(6, device="simdev:1").view(2, 3).t(), file)
        file.seek(0)
        loaded = torch.load(file)
        file.seek(0)
        return str(loaded.device), str(torch.load(file, map_location="cpu").device), loaded

    place, mapped, loaded = on_one_rank(distributed_run, body)

    assert (place, mapped) == ("simdev:1", "cpu")
    assert torch.equal(loaded, torch.arange(6).view(2, 3).t())


@pytest.mark.filterwarnings("default")
def test_inductor_makes_the_code_that_it_makes_for_the_cpu(distributed_run: DistributedRun) -> None:
    """Taken for a device of CUDA's, it would lack the types of variables for vectors of places in tables."""

    def body() -> tuple[str, str]:
        inductor: Any = importlib.import_module("torch._inductor.utils")
        scheduling = torch.get_device_module("simdev").Scheduling.__name__
        return scheduling, inductor.get_current_backend("simdev")

    assert on_one_rank(distributed_run, body) == ("CppScheduling", "cpp")
