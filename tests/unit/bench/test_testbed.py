"""Processes of the benchmark."""

from __future__ import annotations

from pathlib import Path

from bench import testbed


def test_output_of_an_earlier_process_is_not_taken_for_that_of_the_next_one(tmp_path: Path) -> None:
    first = testbed.start_process("worker", ["python", "-c", "print('first is ready')"], {}, tmp_path)
    first.wait_for_output("first")
    first.wait()
    second = testbed.start_process("worker", ["python", "-c", "print('second is ready')"], {}, tmp_path)
    second.wait_for_output("second is ready")
    second.wait()
    assert "first" not in second.output()
