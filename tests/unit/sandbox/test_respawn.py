"""A crashed process comes back; one that refuses to start, or is told to stop, does not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from sandbox.respawn import Respawner, alive, ended
from tests.support.environment import ROOT

Start = Callable[..., "subprocess.Popen[str]"]

#: Says its process id, then waits for a signal.
WAIT = "import os, signal; print(os.getpid(), flush=True); signal.pause()"
#: The same, and its child says its own.
WAIT_WITH_CHILD = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {WAIT!r}]); {WAIT}"


@pytest.fixture
def start() -> Iterator[Start]:
    started = []

    def respawn(code: str, *options: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "sandbox.respawn", *options, "--", sys.executable, "-c", code]
        started.append(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
        return started[-1]

    yield respawn
    for process in started:
        process.terminate()
        process.communicate(timeout=20)


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_crash_is_told_and_the_process_comes_back(start: Start) -> None:
    respawner = start(WAIT)
    first = int(line(respawner))
    os.kill(first, signal.SIGKILL)

    assert line(respawner).endswith("was killed by SIGKILL; starting it again in 0.5 s")
    assert int(line(respawner)) != first


def test_each_wait_is_twice_the_one_before(start: Start) -> None:
    respawner = start("raise SystemExit(1)")

    assert line(respawner).endswith("ended with status 1; starting it again in 0.5 s")
    assert line(respawner).endswith("ended with status 1; starting it again in 1 s")


@pytest.mark.parametrize("status", [78, 4])
def test_a_refusal_ends_it_with_the_status_of_a_wrong_configuration(start: Start, status: int) -> None:
    respawner = start(f"print('no such setting', flush=True); raise SystemExit({status})")

    said, _ = respawner.communicate(timeout=20)

    assert respawner.returncode == 78
    assert said.splitlines()[0] == "no such setting"
    assert "refuses to start" in said.splitlines()[1]


def test_sigterm_is_passed_on_and_awaited(start: Start) -> None:
    code = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit('asked')); print(1, flush=True); "
    respawner = start(f"{code}signal.pause()")
    line(respawner)

    respawner.terminate()
    said, _ = respawner.communicate(timeout=20)

    assert said.strip() == "asked"
    assert respawner.returncode == 0


def test_sigterm_while_waiting_for_the_next_start_ends_it_at_once(start: Start) -> None:
    respawner = start("raise SystemExit(1)")
    line(respawner)

    respawner.terminate()

    assert respawner.wait(5) == 0


def test_children_that_a_crash_left_behind_are_ended(start: Start) -> None:
    respawner = start(WAIT_WITH_CHILD)
    first, second = int(line(respawner)), int(line(respawner))
    main, child = sorted((first, second))  # the child is younger
    left = psutil.Process(child)

    os.kill(main, signal.SIGKILL)
    assert "was killed by SIGKILL" in line(respawner)

    left.wait(10)


def test_it_stops_when_the_process_it_works_for_is_gone(start: Start) -> None:
    guardian = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    respawner = start(WAIT, "--while", str(guardian.pid))
    child = int(line(respawner))

    guardian.communicate(b"\n")

    assert respawner.wait(10) == 0
    assert not alive(child)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent was killed")
def test_killed_itself_it_leaves_no_process_behind(start: Start) -> None:
    respawner = start(WAIT)
    child = psutil.Process(int(line(respawner)))

    respawner.kill()

    child.wait(10)


def test_a_command_that_does_not_exist_is_a_refusal(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert Respawner([str(tmp_path / "nothing")]).run() == 78
    assert "cannot be started: No such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0, "ended with status 0"),
        (3, "ended with status 3"),
        (-9, "was killed by SIGKILL"),
        (-99, "was killed by signal 99"),
    ],
)
def test_statuses_are_told_in_words(status: int, words: str) -> None:
    assert ended(status) == words
