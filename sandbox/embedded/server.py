"""Starting an embedded server: its stored password and port, and a start that returns once the server answers."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sandbox.child_processes import die_with_parent, stop_process
from sandbox.ports import LAST_PORT, claim_port, find_free_port, is_port_free

POLL_SECONDS = 0.01
FAILED_START_STOP_SECONDS = 5.0
PORT_TRIES = 5
LOG_TAIL_BYTES = 1500
#: What servers say with LC_ALL=C: both of their port, PostgreSQL of memory that it shares with its other processes.
PORT_IN_USE, MEMORY_IN_USE = "Address already in use", "pre-existing shared memory block"


class EmbeddedError(Exception):
    """An embedded server cannot run on this machine; the message says why and what to do."""


class PortTaken(Exception):
    """Another process took the port between the check and the start."""


class FilesInUse(EmbeddedError):
    """Processes of an earlier server still use its files."""


@dataclass(frozen=True, slots=True)
class Account:
    """The account that a server runs as; the current one by default."""

    uid: int | None = None
    gid: int | None = None

    def popen_arguments(self) -> dict[str, object]:
        if self.uid is None:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def take_ownership(self, path: Path) -> None:
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start one server. `stdin` carries what `ps` must not show."""

    name: str
    argv: Sequence[str]
    folder: Path
    log: Path
    stop_signal: signal.Signals
    environment: dict[str, str]
    account: Account = field(default_factory=Account)
    stdin: str = field(default="", repr=False)

    def start(self, is_ready: Callable[[subprocess.Popen[bytes]], bool], seconds: float) -> subprocess.Popen[bytes]:
        """Returns once `is_ready` is true. Raises EmbeddedError or PortTaken, and then no process is left."""
        log_start = self.log.stat().st_size if self.log.exists() else 0
        process = self._spawn()
        try:
            self._wait_until_ready(process, is_ready, seconds, log_start)
        except BaseException:
            stop_process(process, self.stop_signal, FAILED_START_STOP_SECONDS)
            raise
        return process

    def _spawn(self) -> subprocess.Popen[bytes]:
        with open(self.log, "ab", opener=open_private) as log:
            process: subprocess.Popen[bytes] = subprocess.Popen(  # type: ignore[call-overload]
                list(self.argv),
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C must reach the parent alone: it stops the servers last
                preexec_fn=die_with_parent(self.stop_signal),  # noqa: PLW1509  one call into libc, nothing shared
                **self.account.popen_arguments(),
            )
        if process.stdin is not None:
            # a process that has ended already is reported by start()
            with contextlib.suppress(BrokenPipeError), process.stdin as stdin:
                stdin.write(self.stdin.encode())
        return process

    def _wait_until_ready(
        self,
        process: subprocess.Popen[bytes],
        is_ready: Callable[[subprocess.Popen[bytes]], bool],
        seconds: float,
        log_start: int,
    ) -> None:
        deadline = time.monotonic() + seconds
        while not is_ready(process):
            if process.poll() is not None:
                raise self._make_startup_error(log_start)
            if time.monotonic() > deadline:
                raise EmbeddedError(f"{self.name} does not answer after {seconds:g} s; its log is {self.log}")
            time.sleep(POLL_SECONDS)

    def _make_startup_error(self, log_start: int) -> Exception:
        with self.log.open("rb") as log:
            log.seek(log_start)
            output = log.read()[-LOG_TAIL_BYTES:].decode(errors="replace").strip()
        if PORT_IN_USE in output:
            return PortTaken(self.name)
        kind = FilesInUse if MEMORY_IN_USE in output else EmbeddedError
        return kind(f"{self.name} did not start; its log ({self.log}) ends with:\n{output}")


def start_on_free_port(
    launch: Callable[[int], subprocess.Popen[bytes]], port_file: Path
) -> tuple[subprocess.Popen[bytes], int]:
    """The process and its port: the one in `port_file` where it is free, so that URLs stay valid, else any.

    Raises EmbeddedError.
    """
    for _ in range(PORT_TRIES):
        stored = _read_port(port_file)
        port = stored if stored and is_port_free(stored) and claim_port(stored) else find_free_port()
        try:
            process = launch(port)
        except PortTaken:
            port_file.unlink(missing_ok=True)
            continue
        port_file.write_text(f"{port}\n", encoding="ascii")
        return process, port
    raise EmbeddedError(f"{PORT_TRIES} free ports in a row were taken by other processes: try again")


def find_orphan_port(port_file: Path) -> int | None:
    """The stored port where a server listens on it now.

    That is a server whose parent was killed, on a system that does not signal children then, or a stranger's.
    """
    port = _read_port(port_file)
    return port if port and not is_port_free(port) else None


def _read_port(port_file: Path) -> int | None:
    try:
        port = int(port_file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return port if 0 < port <= LAST_PORT else None


def load_password(path: Path) -> str:
    """The stored password; a new one is generated and stored where there is none, readable by its owner alone."""
    try:
        return path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        pass
    password = secrets.token_hex(16)
    with open(path, "x", encoding="ascii", opener=open_private) as file:
        file.write(password)
    return password


def open_private(path: str, flags: int) -> int:
    """For open()'s `opener`: only the owner can read a new file, from its first byte on."""
    return os.open(path, flags, 0o600)


def find_package_folder(name: str) -> Path:
    """The folder of an installed package; its code is not run. Raises EmbeddedError."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedError(f"{name} is not installed: make setup, or pip install 'tokenkeeper[sandbox]'")
    return Path(next(iter(spec.submodule_search_locations)))
