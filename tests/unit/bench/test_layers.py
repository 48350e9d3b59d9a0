"""CPU of an inner layer is not counted in the outer one, and CPU in no layer is reported as the rest."""

import pytest

from bench.layers import Stopwatch, split_by_layer


def test_the_layers_and_the_rest_add_up_to_the_whole_process() -> None:
    cpu_seconds = {"open": 0.1, "ask": 0.5, "attempt": 0.8, "claim": 0.05, "save": 0.05, "process": 1.2}
    by_layer = split_by_layer(cpu_seconds, refreshes=1000)
    assert by_layer == pytest.approx(
        {"open": 100, "ask": 500, "attempt": 200, "claim": 50, "save": 50, "rest": 300}, rel=1e-9
    )
    assert sum(by_layer.values()) == pytest.approx(1200)


def test_a_timed_call_returns_its_result_and_failures_are_timed_too() -> None:
    stopwatch = Stopwatch()
    assert stopwatch.wrap("open", sum)(range(100_000)) == 4_999_950_000
    after_one = stopwatch.read()["open"]
    with pytest.raises(ZeroDivisionError):
        stopwatch.wrap("open", lambda: sum(range(100_000)) / 0)()
    assert 0 < after_one < stopwatch.read()["open"]
