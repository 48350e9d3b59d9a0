"""Waiting for a process that ends."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sandbox.child_processes import ChildProcess, ProcessFailed


@pytest.fixture
def process(tmp_path: Path) -> ChildProcess:
    return ChildProcess("short", [sys.executable, "-c", "print('done')"], {}, tmp_path / "log")


def test_what_a_process_printed_just_before_its_end_is_found(process: ChildProcess) -> None:
    looks = []

    def has_printed(process: ChildProcess) -> bool:
        looks.append(process.has_printed("done"))
        if len(looks) > 1:
            return looks[-1]
        process.wait()
        return False

    assert process.wait_until(has_printed) is process


def test_a_process_that_ends_before_it_is_ready_is_reported_with_its_output(process: ChildProcess) -> None:
    with pytest.raises(ProcessFailed, match="short ended with status 0:\ndone"):
        process.wait_until(lambda process: process.has_printed("other"))
