"""Processes that the benchmark starts: their output in a file, waited for, and none left behind."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from sandbox.child_processes import die_with_parent, signal_group, stop_process

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 60.0
STOP_SECONDS = 60.0
POLL = 0.02
LOG_TAIL = 3000


class Failed(Exception):
    """Something of the run did not work, so that no figure would be worth anything."""


class Process:
    """`argv` begins with a command of this environment's bin folder. Start it from the main thread."""

    def __init__(self, name: str, argv: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
        self.name = name
        self._log = folder / f"{name}.log"
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                [str(Path(sys.executable).parent / argv[0]), *argv[1:]],
                cwd=ROOT,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C reaches us alone
                preexec_fn=die_with_parent(signal.SIGTERM),  # noqa: PLW1509  one call into libc
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def says(self, words: str) -> re.Match[str]:
        """Wait until its output matches. Raises Failed."""
        deadline = time.monotonic() + START_SECONDS
        while not (found := re.search(words, self.output())):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise Failed(f"{self.name} did not get as far as to say {words!r}:\n{self.output()[-LOG_TAIL:]}")
            time.sleep(POLL)
        return found

    def output(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def must_run(self) -> None:
        """Raises Failed where it has ended."""
        if (status := self._process.poll()) is not None:
            raise Failed(f"{self.name} ended with status {status}:\n{self.output()[-LOG_TAIL:]}")

    def stop(self) -> None:
        """SIGTERM, so that it ends what is in flight; children that it leaves behind go too."""
        stop_process(self._process, signal.SIGTERM, STOP_SECONDS)
        signal_group(self.pid, signal.SIGKILL)

    def kill(self) -> None:
        """For what has nothing to end."""
        signal_group(self.pid, signal.SIGKILL)
        self._process.wait()


def run(name: str, argv: Sequence[str], environment: Mapping[str, str], stdin: bytes = b"") -> str:
    """What a command prints. Raises Failed."""
    done = subprocess.run(
        [str(Path(sys.executable).parent / argv[0]), *argv[1:]],
        cwd=ROOT,
        env=dict(environment),
        input=stdin,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise Failed(f"{name} failed:\n{done.stderr.decode(errors='replace')[-LOG_TAIL:]}")
    return done.stdout.decode()
