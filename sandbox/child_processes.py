"""Child processes: a class that starts, watches and stops one, and the functions below it.

No child outlives its parent, and every stop begins with a signal that a process can handle.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 60.0
STOP_SECONDS = 20.0
POLL_SECONDS = 0.02
LOG_TAIL_CHARACTERS = 6000
PR_SET_PDEATHSIG = 1


class ProcessFailed(Exception):
    """A process ended, or was not ready in time; the message ends with its last output."""


class ChildProcess:
    """A process in a session of its own, whose output goes to a file. Start it from the main thread.

    `url` is where it listens, empty where it does not; `user` is the account that it runs as, None for ours.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        *,
        url: str = "",
        cwd: Path = ROOT,
        stop_signal: int = signal.SIGTERM,
        user: str | None = None,
    ) -> None:
        self.name = name
        self.log = log
        self.url = url
        self._stop_signal = stop_signal
        with log.open("ab") as output:
            self._process = self._start(argv, environment, output, cwd, user)

    def _start(
        self, argv: Sequence[str], environment: Mapping[str, str], output: IO[bytes], cwd: Path, user: str | None
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            list(argv),
            cwd=cwd,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C reaches the parent alone
            preexec_fn=die_with_parent(self._stop_signal),  # noqa: PLW1509  one call into libc
            user=user,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Exit status; negative for a signal; None while it runs."""
        return self._process.poll()

    def output(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def has_printed(self, text: str) -> bool:
        return text in self.output()

    def wait_until(self, is_ready: Callable[[ChildProcess], bool], seconds: float = START_SECONDS) -> ChildProcess:
        """Raises ProcessFailed where the process ends before `is_ready`, or takes longer than `seconds`."""
        deadline = time.monotonic() + seconds
        while True:
            has_ended = self.status is not None  # asked first: what it did just before its end counts
            if is_ready(self):
                return self
            if has_ended:
                self.check_running()
            if time.monotonic() > deadline:
                raise ProcessFailed(f"{self.name} is not ready after {seconds:g} s:\n{self._output_tail()}")
            time.sleep(POLL_SECONDS)

    def wait_for_output(self, pattern: str, seconds: float = START_SECONDS) -> re.Match[str]:
        """Wait until the output matches the regular expression. Raises ProcessFailed, as `wait_until` does."""
        matches: list[re.Match[str]] = []

        def search(process: ChildProcess) -> bool:
            if match := re.search(pattern, process.output()):
                matches.append(match)
            return bool(matches)

        self.wait_until(search, seconds)
        return matches[0]

    def check_running(self) -> None:
        """Raises ProcessFailed where the process has ended."""
        if self.status is not None:
            raise ProcessFailed(f"{self.name} ended with status {self.status}:\n{self._output_tail()}")

    def wait(self, seconds: float = START_SECONDS) -> int:
        """The exit status of a process that ends by itself. Raises subprocess.TimeoutExpired."""
        return self._process.wait(seconds)

    def send_signal(self, signum: int) -> None:
        """To the process alone, not to its children."""
        self._process.send_signal(signum)

    def kill(self, signum: int = signal.SIGKILL) -> None:
        """Signal the process and all its children. Waits for the end only after SIGKILL."""
        signal_group(self.pid, signum)
        if signum == signal.SIGKILL:
            self._process.wait()

    def stop(self, seconds: float = STOP_SECONDS) -> int:
        """Send the stop signal, SIGKILL after `seconds`, and SIGKILL to children that are left. The exit status."""
        if self.status is None:
            signal_group(self.pid, signal.SIGCONT)  # a suspended process handles no signal
        status = stop_process(self._process, self._stop_signal, seconds)
        signal_group(self.pid, signal.SIGKILL)
        return status

    def _output_tail(self) -> str:
        return self.output()[-LOG_TAIL_CHARACTERS:]


def installed_command(name: str) -> str:
    """The path of a command of this Python environment, such as `celery`."""
    return str(Path(sys.executable).parent / name)


def die_with_parent(signum: int) -> Callable[[], None] | None:
    """For Popen's preexec_fn: Linux sends the child `signum` when the thread that starts it ends, even by SIGKILL.

    So start long-lived children from the main thread. Other systems have no such call: None.
    """
    if sys.platform != "linux":
        return None
    libc, parent = ctypes.CDLL(None), os.getpid()

    def before_exec() -> None:
        libc.prctl(PR_SET_PDEATHSIG, int(signum))
        if os.getppid() != parent:  # the parent ended before prctl
            os._exit(1)

    return before_exec


def stop_process(process: subprocess.Popen[bytes], signum: int = signal.SIGTERM, patience: float = 20.0) -> int:
    """Send `signum`, wait for `patience` seconds, then send SIGKILL. Returns the exit status, negative for a signal."""
    if process.poll() is None:
        process.send_signal(signum)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()


def signal_group(leader: int, signum: int) -> bool:
    """Signal what is left of the session that `leader` began; False where nothing is."""
    try:
        os.killpg(leader, signum)
    except (ProcessLookupError, PermissionError):  # macOS: EPERM for a group of zombies
        return False
    return True
