"""`python -m sandbox.respawn --parent PID -- COMMAND`: starts a process again when it crashes, until SIGTERM.

Honcho stops everything when one process ends; a crash should not have that effect. A process that refuses to start
because of its configuration does end the rest: it would refuse every time.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from sandbox.child_processes import die_with_parent, signal_group

EX_CONFIG = 78
#: Exit statuses that report a wrong configuration: sysexits.h's EX_CONFIG and gunicorn's APP_LOAD_ERROR.
CONFIGURATION_ERRORS = (EX_CONFIG, 4)
#: Between two starts; doubles with each crash.
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.5, 10.0
#: A process that ran this long starts again with the first wait.
STABLE_SECONDS = 30.0
#: From SIGTERM to SIGKILL: a worker finishes its calls to HubSpot.
STOP_SECONDS = 50.0
POLL_SECONDS = 0.2


class Respawner:
    """Runs one command. Signals go to its main process alone, which stops its own children."""

    def __init__(self, command: list[str], parent: int | None = None, stop_seconds: float = STOP_SECONDS) -> None:
        """Stops as after SIGTERM when the process `parent` has ended."""
        self._command = command
        self._parent = parent
        self._stop_seconds = stop_seconds
        self._is_stopping = False
        words = [Path(word).name for word in command if not word.startswith("-")]
        self._name = " ".join(words[1:3] if words[0].startswith("python") else words[:2])

    def stop(self, *_: object) -> None:
        """A signal handler: it takes no lock, as that of an Event, which the code that it interrupts may hold."""
        self._is_stopping = True

    def run(self) -> int:
        """The exit status: 0 after `stop`, EX_CONFIG where the command refuses to start."""
        wait = FIRST_WAIT_SECONDS
        while True:
            start = time.monotonic()
            status = self._run_once()
            if self._is_stopping:
                return 0
            if status in CONFIGURATION_ERRORS:
                say(f"{self._name} refuses to start; the line above says why")
                return EX_CONFIG
            if time.monotonic() - start > STABLE_SECONDS:
                wait = FIRST_WAIT_SECONDS
            say(f"{self._name} {describe_status(status)}; starting it again in {wait:g} s")
            if self._wait_for_stop(wait):
                return 0
            wait = min(2 * wait, LONGEST_WAIT_SECONDS)

    def _wait_for_stop(self, seconds: float) -> bool:
        """False where it was not stopped in that time."""
        end = time.monotonic() + seconds
        while not self._is_stopping and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, POLL_SECONDS))
        return self._is_stopping

    def _run_once(self) -> int:
        try:
            process = subprocess.Popen(
                self._command,
                start_new_session=True,
                preexec_fn=die_with_parent(signal.SIGTERM),  # noqa: PLW1509  one call into libc
            )
        except OSError as error:
            say(f"{self._command[0]} cannot be started: {error.strerror}")
            return EX_CONFIG
        try:
            return self._wait(process)
        finally:
            signal_group(process.pid, signal.SIGKILL)  # children that it left behind

    def _wait(self, process: subprocess.Popen[bytes]) -> int:
        while process.poll() is None and not self._is_stopping:
            try:
                return process.wait(POLL_SECONDS)
            except subprocess.TimeoutExpired:
                if self._parent and not is_running(self._parent):
                    self._is_stopping = True
        process.terminate()
        try:
            return process.wait(self._stop_seconds)
        except subprocess.TimeoutExpired:
            say(f"{self._name} did not stop within {self._stop_seconds:g} s and is killed")
            process.kill()
            return process.wait()


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def describe_status(status: int) -> str:
    """`status` as subprocess reports it: negative for a signal."""
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"


def say(line: str) -> None:
    print(f"tokenkeeper: {line}", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m sandbox.respawn", description=__doc__)
    parser.add_argument("--parent", type=int, help="stop when the process of this id has ended")
    parser.add_argument("--stop-seconds", type=float, default=STOP_SECONDS, help="from SIGTERM to SIGKILL")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    respawner = Respawner(options.command, options.parent, options.stop_seconds)
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, respawner.stop)
    return respawner.run()


if __name__ == "__main__":
    sys.exit(main())
