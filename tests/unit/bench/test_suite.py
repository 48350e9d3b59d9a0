"""A part of a run that fails leaves its reason, and the others are measured; Ctrl-C ends the run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench import testbed
from bench.figures import Part
from bench.measure import MachineLoad
from bench.plan import QUICK
from bench.suite import Suite
from bench.testbed import BenchmarkError, SimulatedHubSpot
from sandbox.child_processes import ProcessFailed
from sandbox.embedded import EmbeddedPostgres, EmbeddedValkey


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    """Without servers."""
    hubspot = SimulatedHubSpot.__new__(SimulatedHubSpot)
    servers = testbed.Testbed(tmp_path, {}, EmbeddedPostgres(tmp_path), EmbeddedValkey(tmp_path), hubspot)
    return Suite(servers, QUICK, lambda _: None)


@pytest.mark.parametrize("error", [BenchmarkError, ProcessFailed])
def test_a_part_that_fails_leaves_its_reason_and_its_time(suite: Suite, error: type[Exception]) -> None:
    with suite._part(Part.READS):
        raise error("pgbench failed")
    with suite._part(Part.REST):
        pass
    assert suite.results.failures == {Part.READS: "pgbench failed"}
    assert set(suite.results.seconds) == {Part.READS, Part.REST}


@pytest.mark.parametrize("error", [KeyboardInterrupt, AssertionError])
def test_an_interrupt_or_a_bug_ends_the_run(suite: Suite, error: type[BaseException]) -> None:
    with pytest.raises(error), suite._part(Part.READS):
        raise error


def test_a_disk_that_is_too_small_is_said_before_anything_is_stored(suite: Suite) -> None:
    with pytest.raises(BenchmarkError, match="choose a smaller SIZE, or another disk by TMPDIR"):
        suite._testbed.check_free_disk(10**18)
    suite._testbed.check_free_disk(1)


def test_what_other_programs_used_is_what_the_run_did_not() -> None:
    cores = os.cpu_count() or 1
    before = MachineLoad(read_at=0, all_seconds=100, own_seconds=10)
    after = MachineLoad(read_at=10, all_seconds=100 + 6 * cores, own_seconds=10 + 4 * cores)
    assert after.others_percent(before) == pytest.approx(20)
    assert before.others_percent(MachineLoad(read_at=-1, all_seconds=100, own_seconds=9)) == 0
