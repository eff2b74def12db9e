from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from pytest_vdist.reference_impl import envs

Reader = Callable[..., timedelta | None]

READERS: list[tuple[str, Reader]] = [
    (envs.DISTRIBUTED_TIMEOUT, envs.distributed_timeout),
    (envs.CPU_DISTRIBUTED_TIMEOUT, envs.cpu_distributed_timeout),
]


@pytest.mark.parametrize(("variable", "read"), READERS)
def test_an_unset_timeout_leaves_the_backend_its_own(variable: str, read: Reader) -> None:
    other = {name: "5" for name, _ in READERS if name != variable}
    assert read(other) is None


@pytest.mark.parametrize(("variable", "read"), READERS)
@pytest.mark.parametrize(("text", "seconds"), [("60", 60), ("0.5", 0.5), ("86400", 86400), (" 7 ", 7)])
def test_a_timeout_is_read_in_seconds(variable: str, read: Reader, text: str, seconds: float) -> None:
    assert read({variable: text}) == timedelta(seconds=seconds)


@pytest.mark.parametrize(("variable", "read"), READERS)
@pytest.mark.parametrize("text", ["", "soon", "0", "-1", "nan", "inf", "-inf", "86401", "1e30", "1 s"])
def test_a_wrong_timeout_is_refused_naming_variable_and_value(variable: str, read: Reader, text: str) -> None:
    with pytest.raises(ValueError, match=variable) as refusal:
        read({variable: text})
    message = str(refusal.value)
    assert repr(text) in message or f"={float(text)!r}" in message
    assert "backend's own timeout" in message


def test_the_process_environment_is_what_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(envs.DISTRIBUTED_TIMEOUT, "3")
    assert envs.distributed_timeout() == timedelta(seconds=3)


@pytest.mark.parametrize("value", [3, 3.0, timedelta(seconds=3)])
def test_an_argument_may_be_seconds_or_a_timedelta(value: Any) -> None:
    assert envs.as_timeout(value, "timeout") == timedelta(seconds=3)


@pytest.mark.parametrize("value", [0, -0.1, float("nan"), 86400.5, timedelta(days=2), timedelta(0)])
def test_a_wrong_argument_is_refused_naming_it(value: Any) -> None:
    with pytest.raises(ValueError, match="cpu_timeout=") as refusal:
        envs.as_timeout(value, "cpu_timeout")
    assert repr(value) in str(refusal.value)


@pytest.mark.parametrize("value", ["3", True, [3]])
def test_an_argument_of_another_type_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="timeout="):
        envs.as_timeout(value, "timeout")
