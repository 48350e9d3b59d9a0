"""`python -m sandbox.respawn --while PID -- COMMAND`: starts a process again when it crashes, until it is told to stop.

Honcho stops everything when one process ends; a crash should not. A process that refuses to start ends the rest: it
would refuse for ever.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from sandbox.child_processes import die_with_parent, signal_group

#: Exit statuses of a process that was set up wrongly and said so: sysexits.h's EX_CONFIG, gunicorn's APP_LOAD_ERROR.
EX_CONFIG = 78
REFUSALS = (EX_CONFIG, 4)
FIRST_WAIT, LONGEST_WAIT = 0.5, 10.0  #: seconds between two starts, doubling
SETTLED = 30.0  #: seconds after which a crash is a new one
PATIENCE = 50.0  #: seconds from SIGTERM to SIGKILL, unless told otherwise: a worker finishes its calls to HubSpot
POLL = 0.5


class Respawner:
    """Runs one command; signals are for its main process alone, which knows how to stop its children."""

    def __init__(self, command: list[str], guardian: int | None = None, patience: float = PATIENCE) -> None:
        """`guardian`: when the process of this id is gone, it is time to stop, within `patience` seconds."""
        self._command = command
        self._guardian = guardian
        self._patience = patience
        self._told = threading.Event()

    def stop(self, *_: object) -> None:
        self._told.set()

    def run(self) -> int:
        """The exit status: 0 when it was told to stop, or the one of a command that refuses to start."""
        wait = FIRST_WAIT
        while True:
            began = time.monotonic()
            status = self._once()
            if self._told.is_set():
                return 0
            if status in REFUSALS:
                say(f"{self._name()} refuses to start; the line above says why")
                return EX_CONFIG
            wait = FIRST_WAIT if time.monotonic() - began > SETTLED else wait
            say(f"{self._name()} {ended(status)}; starting it again in {wait:g} s")
            if self._told.wait(wait):
                return 0
            wait = min(2 * wait, LONGEST_WAIT)

    def _once(self) -> int:
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
            return self._watch(process)
        finally:
            signal_group(process.pid, signal.SIGKILL)  # children that it left behind

    def _watch(self, process: subprocess.Popen[bytes]) -> int:
        while process.poll() is None:
            if self._told.is_set():
                return self._end(process)
            try:
                process.wait(POLL)
            except subprocess.TimeoutExpired:
                if self._guardian and not alive(self._guardian):
                    self._told.set()
        return process.wait()

    def _end(self, process: subprocess.Popen[bytes]) -> int:
        process.terminate()
        try:
            return process.wait(self._patience)
        except subprocess.TimeoutExpired:
            say(f"{self._name()} did not stop within {self._patience:g} s and is killed")
            process.kill()
            return process.wait()

    def _name(self) -> str:
        words = [Path(word).name for word in self._command if not word.startswith("-")]
        return " ".join(words[1:3] if words[0].startswith("python") else words[:2])


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def ended(status: int) -> str:
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
    parser.add_argument("--while", dest="guardian", type=int, help="stop when the process of this id is gone")
    parser.add_argument("--patience", type=float, default=PATIENCE, help="seconds from SIGTERM to SIGKILL")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    respawner = Respawner(options.command, options.guardian, options.patience)
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, respawner.stop)
    return respawner.run()


if __name__ == "__main__":
    sys.exit(main())
