"""CPU in no layer is reported as the rest."""

from typing import Any

import pytest

from bench.layers import Stopwatch, split_by_layer


def test_the_layers_and_the_rest_add_up_to_the_whole_process() -> None:
    cpu_seconds = {"open": 0.1, "attempt": 0.3, "claim": 0.05, "save": 0.05, "process": 1.2}
    by_layer = split_by_layer(cpu_seconds, refreshes=1000)
    assert by_layer == pytest.approx({"open": 100, "attempt": 300, "claim": 50, "save": 50, "rest": 700}, rel=1e-9)
    assert sum(by_layer.values()) == pytest.approx(1200)


def test_timed_steps_are_resumed_with_each_reply_and_return_their_result() -> None:
    def add_two_replies() -> Any:
        first = yield "first call"
        second = yield "second call"
        return first + second

    steps = Stopwatch().wrap_steps("attempt", add_two_replies)()
    assert (steps.send(None), steps.send(1)) == ("first call", "second call")
    with pytest.raises(StopIteration) as end:
        steps.send(2)
    assert end.value.value == 3


def test_a_timed_call_returns_its_result_and_failures_are_timed_too() -> None:
    stopwatch = Stopwatch()
    assert stopwatch.wrap("open", sum)(range(100_000)) == 4_999_950_000
    after_one = stopwatch.read()["open"]
    with pytest.raises(ZeroDivisionError):
        stopwatch.wrap("open", lambda: sum(range(100_000)) / 0)()
    assert 0 < after_one < stopwatch.read()["open"]
