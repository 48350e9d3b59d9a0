"""What the health check of worker and beat goes by: a file with the time of its last beat."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.environment import ROOT
from worker.liveness import SILENCE, HeartbeatFile, main

NOW = 5_000.0


def clock() -> float:
    return NOW


@pytest.fixture
def pulse(tmp_path: Path) -> HeartbeatFile:
    return HeartbeatFile("celery@here", tmp_path, clock)


def written(pulse: HeartbeatFile, ago: float) -> None:
    pulse.path.write_text(f"{NOW - ago:020.3f}\n")


def test_who_beats_is_alive(pulse: HeartbeatFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pulse.beat()
    assert main(["celery@here"], tmp_path, lambda: NOW + 7) == 0
    assert capsys.readouterr().out == "celery@here: alive, last seen 7 s ago\n"


def test_the_clock_is_the_machines(tmp_path: Path) -> None:
    """Else the check of a process that lives would ask another clock than the one it beats by."""
    HeartbeatFile("celery@here", tmp_path).beat()
    assert main(["celery@here"], tmp_path) == 0


def test_who_never_did_is_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["celery@here"], tmp_path) == 1
    assert "NOT alive, never seen" in capsys.readouterr().out


@pytest.mark.parametrize(("ago", "status"), [(SILENCE - 0.01, 0), (SILENCE, 1)])
def test_a_minute_of_silence_is_the_end(pulse: HeartbeatFile, tmp_path: Path, ago: float, status: int) -> None:
    pulse.beat()
    written(pulse, ago)
    assert main(["celery@here"], tmp_path, clock) == status


def test_a_file_of_before_the_machine_started_again_says_nothing(pulse: HeartbeatFile) -> None:
    pulse.beat()
    written(pulse, -1000)
    assert pulse.silence() is None


def test_a_beat_that_was_rounded_up_is_one_of_now(pulse: HeartbeatFile) -> None:
    pulse.beat()
    written(pulse, -0.5)
    assert pulse.silence() == 0


def test_a_file_of_nonsense_says_nothing(pulse: HeartbeatFile) -> None:
    pulse.beat()
    pulse.path.write_text("nonsense")
    assert pulse.silence() is None


def test_each_node_has_its_own(pulse: HeartbeatFile, tmp_path: Path) -> None:
    pulse.beat()
    assert main(["celerybeat@here"], tmp_path) == 1


def test_a_name_cannot_lead_elsewhere(pulse: HeartbeatFile, tmp_path: Path) -> None:
    assert HeartbeatFile("../../celery@here", tmp_path).path.parent == pulse.path.parent


def test_a_link_that_somebody_laid_is_not_followed(pulse: HeartbeatFile, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    pulse.path.parent.mkdir()
    pulse.path.symlink_to(victim)
    with pytest.raises(OSError, match="symbolic link"):
        pulse.beat()
    assert victim.read_text() == "precious"


def test_the_file_goes_with_the_process(pulse: HeartbeatFile) -> None:
    pulse.beat()
    pulse.end()
    pulse.end()
    assert pulse.silence() is None


def test_without_a_node_it_says_what_to_say(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "python -m worker.liveness celery" in capsys.readouterr().err


def test_asking_loads_nothing_heavy() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "worker.liveness", "nobody"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert not {"celery", "kombu", "redis", "sqlalchemy", "structlog"} & set(done.stderr.replace("|", " ").split())
