"""A crashed process is started again; one that refuses to start, or that is stopped, is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from sandbox.respawn import Respawner, describe_status, is_running
from tests.support.environment import ROOT

Start = Callable[..., "subprocess.Popen[str]"]

#: Prints its process id, then waits for a signal.
WAIT = "import os, signal; print(os.getpid(), flush=True); signal.pause()"
#: The same, with a child that does it too.
WAIT_WITH_CHILD = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {WAIT!r}]); {WAIT}"

#: Once a crash was reported, gets SIGTERM in the first function that is called, in another process in the second, …
STOP_IN_EACH_CALL = """
import os, signal, sys
from sandbox.respawn import Respawner

def signal_in_call(number):
    calls = []
    def count(frame, event, _):
        if event == "call" and (calls or frame.f_code.co_name == "say"):
            calls.append(frame)
            if len(calls) == number:
                os.kill(os.getpid(), signal.SIGTERM)
    sys.setprofile(count)

for number in range(1, 9):
    if not (pid := os.fork()):
        signal.alarm(20)
        respawner = Respawner(["false", "command"])
        signal.signal(signal.SIGTERM, respawner.stop)
        signal_in_call(number)
        os._exit(respawner.run())
    print(os.waitpid(pid, 0)[1])
"""


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
        process.communicate(timeout=60)


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_crash_is_reported_and_the_process_is_started_again(start: Start) -> None:
    respawner = start(WAIT)
    first = int(read_line(respawner))
    os.kill(first, signal.SIGKILL)

    assert read_line(respawner).endswith("was killed by SIGKILL; starting it again in 0.5 s")
    assert int(read_line(respawner)) != first


def test_each_wait_before_a_start_is_twice_the_last_one(start: Start) -> None:
    respawner = start("raise SystemExit(1)")

    assert read_line(respawner).endswith("ended with status 1; starting it again in 0.5 s")
    assert read_line(respawner).endswith("ended with status 1; starting it again in 1 s")


@pytest.mark.parametrize("status", [78, 4])
def test_a_process_that_refuses_to_start_ends_the_respawner_with_ex_config(start: Start, status: int) -> None:
    respawner = start(f"print('no such setting', flush=True); raise SystemExit({status})")

    output, _ = respawner.communicate(timeout=60)

    assert respawner.returncode == 78
    assert output.splitlines()[0] == "no such setting"
    assert "refuses to start" in output.splitlines()[1]


def test_sigterm_is_forwarded_and_the_end_is_awaited(start: Start) -> None:
    code = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit('asked')); print(1, flush=True); "
    respawner = start(f"{code}signal.pause()")
    read_line(respawner)

    respawner.terminate()
    output, _ = respawner.communicate(timeout=60)

    assert output.strip() == "asked"
    assert respawner.returncode == 0


def test_sigterm_during_the_wait_for_the_next_start_ends_the_respawner(start: Start) -> None:
    respawner = start("raise SystemExit(1)")
    read_line(respawner)

    respawner.terminate()

    assert respawner.wait(60) == 0


def test_sigterm_ends_the_respawner_whatever_it_interrupts() -> None:
    """A handler that takes a lock would wait for ever for the code that it interrupts."""
    command = [sys.executable, "-c", STOP_IN_EACH_CALL]
    output = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True, timeout=200).stdout
    assert output.split() == ["0"] * 8


def test_children_that_a_crashed_process_left_behind_are_killed(start: Start) -> None:
    respawner = start(WAIT_WITH_CHILD)
    first, second = int(read_line(respawner)), int(read_line(respawner))
    main, child = (first, second) if psutil.Process(second).ppid() == first else (second, first)
    orphan = psutil.Process(child)

    os.kill(main, signal.SIGKILL)
    assert "was killed by SIGKILL" in read_line(respawner)

    orphan.wait(60)


def test_the_respawner_stops_when_its_parent_has_ended(start: Start) -> None:
    parent = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    respawner = start(WAIT, "--parent", str(parent.pid))
    child = int(read_line(respawner))

    parent.communicate(b"\n")

    assert respawner.wait(60) == 0
    assert not is_running(child)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux signals a child whose parent was killed")
def test_a_killed_respawner_leaves_no_process_behind(start: Start) -> None:
    respawner = start(WAIT)
    child = psutil.Process(int(read_line(respawner)))

    respawner.kill()

    child.wait(60)


def test_a_command_that_does_not_exist_is_a_configuration_error(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
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
def test_exit_statuses_are_described_in_words(status: int, words: str) -> None:
    assert describe_status(status) == words
