"""The health check of worker and beat: a file with the time of the process's last heartbeat."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from tests.support.environment import ROOT
from worker.heartbeat import Heartbeat
from worker.liveness import POOL_SUFFIX, STUCK_AFTER_SECONDS, HeartbeatFile, main

NOW = 5_000.0


def clock() -> float:
    return NOW


@pytest.fixture
def heartbeat(tmp_path: Path) -> HeartbeatFile:
    return HeartbeatFile("celery@here", tmp_path, clock)


def set_age(heartbeat: HeartbeatFile, seconds: float) -> None:
    heartbeat.write()
    heartbeat.path.write_text(f"{NOW - seconds:020.3f}\n")


def test_a_process_with_a_recent_heartbeat_is_alive(
    heartbeat: HeartbeatFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    heartbeat.write()
    assert main(["celery@here"], tmp_path, lambda: NOW + 7) == 0
    assert capsys.readouterr().out == "celery@here: alive, last heartbeat 7 s ago\n"


def test_writer_and_check_use_the_same_clock_by_default(tmp_path: Path) -> None:
    HeartbeatFile("celery@here", tmp_path).write()
    assert main(["celery@here"], tmp_path) == 0


def test_a_process_without_a_heartbeat_is_not_alive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["celery@here"], tmp_path) == 1
    assert "NOT alive, no heartbeat yet" in capsys.readouterr().out


@pytest.mark.parametrize(("age", "status"), [(STUCK_AFTER_SECONDS - 0.01, 0), (STUCK_AFTER_SECONDS, 1)])
def test_a_process_is_stuck_after_a_minute_without_a_heartbeat(
    heartbeat: HeartbeatFile, tmp_path: Path, age: float, status: int
) -> None:
    set_age(heartbeat, age)
    assert main(["celery@here"], tmp_path, clock) == status


@pytest.mark.parametrize(("age", "status"), [(STUCK_AFTER_SECONDS - 0.01, 0), (STUCK_AFTER_SECONDS, 1)])
def test_a_worker_is_stuck_when_all_its_pool_processes_are(
    heartbeat: HeartbeatFile, tmp_path: Path, age: float, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    heartbeat.write()
    set_age(HeartbeatFile("celery@here" + POOL_SUFFIX, tmp_path, clock), age)
    assert main(["celery@here"], tmp_path, clock) == status
    assert ("of its pool processes 60 s ago" in capsys.readouterr().out) is bool(status)


def test_a_file_from_before_the_machine_restarted_does_not_count(heartbeat: HeartbeatFile) -> None:
    set_age(heartbeat, -1000)
    assert heartbeat.seconds_since_last() is None


def test_a_heartbeat_that_was_rounded_into_the_future_counts_as_now(heartbeat: HeartbeatFile) -> None:
    set_age(heartbeat, -0.5)
    assert heartbeat.seconds_since_last() == 0


def test_a_file_without_a_number_does_not_count(heartbeat: HeartbeatFile) -> None:
    heartbeat.write()
    heartbeat.path.write_text("nonsense")
    assert heartbeat.seconds_since_last() is None


def test_each_node_has_its_own_file(heartbeat: HeartbeatFile, tmp_path: Path) -> None:
    heartbeat.write()
    assert main(["celerybeat@here"], tmp_path) == 1


def test_a_node_name_with_slashes_stays_in_the_folder(heartbeat: HeartbeatFile, tmp_path: Path) -> None:
    assert HeartbeatFile("../../celery@here", tmp_path).path.parent == heartbeat.path.parent


def test_a_symbolic_link_in_place_of_the_file_is_not_followed(heartbeat: HeartbeatFile, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    heartbeat.path.parent.mkdir()
    heartbeat.path.symlink_to(victim)
    with pytest.raises(OSError, match="symbolic link"):
        heartbeat.write()
    assert victim.read_text() == "precious"


def test_a_removed_file_does_not_count_and_can_be_removed_again(heartbeat: HeartbeatFile) -> None:
    heartbeat.write()
    heartbeat.remove()
    heartbeat.remove()
    assert heartbeat.seconds_since_last() is None


def test_without_a_node_the_check_prints_its_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "python -m worker.liveness celery" in capsys.readouterr().err


def test_the_check_imports_no_heavy_package() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "worker.liveness", "no-such-node"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert not {"celery", "kombu", "redis", "sqlalchemy", "structlog"} & set(done.stderr.replace("|", " ").split())


def test_a_heartbeat_that_cannot_be_written_is_logged_once_and_stops_nothing() -> None:
    node = f"test-{uuid4()}"
    path = HeartbeatFile(node).path
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.mkdir()
    with capture_logs() as lines:
        heartbeat = Heartbeat(node)
        heartbeat.write()
        heartbeat.write()
    path.rmdir()
    assert [line["log_level"] for line in lines] == ["warning"]
    assert "no heartbeat file can be written" in lines[0]["event"]
