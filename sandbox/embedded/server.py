"""What both embedded servers need: a kept password and port, a start that waits until they answer, a stop."""

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
from sandbox.ports import LAST_PORT, find_free_port, is_port_free

POLL_SECONDS = 0.01
PORT_TRIES = 5
LOG_TAIL = 1500


class EmbeddedError(Exception):
    """An embedded server cannot run here; the message says why and what to do."""


class PortTaken(Exception):
    """Somebody else was faster: try another one."""


@dataclass(frozen=True, slots=True)
class Account:
    """Whom a server runs as; ourselves where nothing else is said."""

    uid: int | None = None
    gid: int | None = None

    def popen_arguments(self) -> dict[str, object]:
        if self.uid is None:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def own(self, path: Path) -> None:
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start one server. `stdin` carries what must not show in `ps`."""

    name: str
    argv: Sequence[str]
    folder: Path
    log: Path
    stop_signal: signal.Signals
    environment: dict[str, str]
    account: Account = field(default_factory=Account)
    stdin: str = field(default="", repr=False)

    def start(self, answers: Callable[[subprocess.Popen[bytes]], bool], seconds: float) -> subprocess.Popen[bytes]:
        """Returns once `answers` says so. Raises EmbeddedError, or PortTaken."""
        began = self.log.stat().st_size if self.log.exists() else 0
        process = self._spawn()
        try:
            self._wait(process, answers, seconds, began)
        except BaseException:
            stop_process(process, self.stop_signal, patience=5)
            raise
        return process

    def _spawn(self) -> subprocess.Popen[bytes]:
        with open(self.log, "ab", opener=private) as log:
            process: subprocess.Popen[bytes] = subprocess.Popen(  # type: ignore[call-overload]
                list(self.argv),
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C reaches us alone: servers stop last
                preexec_fn=die_with_parent(self.stop_signal),  # noqa: PLW1509  one call into libc, nothing shared
                **self.account.popen_arguments(),
            )
        if process.stdin is not None:
            with contextlib.suppress(BrokenPipeError), process.stdin as stdin:  # if it is gone, _wait tells why
                stdin.write(self.stdin.encode())
        return process

    def _wait(
        self,
        process: subprocess.Popen[bytes],
        answers: Callable[[subprocess.Popen[bytes]], bool],
        seconds: float,
        began: int,
    ) -> None:
        deadline = time.monotonic() + seconds
        while not answers(process):
            if process.poll() is not None:
                raise self._died(began)
            if time.monotonic() > deadline:
                raise EmbeddedError(f"{self.name} does not answer after {seconds:g} s; its log is {self.log}")
            time.sleep(POLL_SECONDS)

    def _died(self, began: int) -> Exception:
        with self.log.open("rb") as log:
            log.seek(began)
            said = log.read()[-LOG_TAIL:].decode(errors="replace").strip()
        if "in use" in said and "port" in said.lower():
            return PortTaken(self.name)
        return EmbeddedError(f"{self.name} did not start; its log ({self.log}) ends with:\n{said}")


def start_on_some_port(
    launch: Callable[[int], subprocess.Popen[bytes]], kept: Path
) -> tuple[subprocess.Popen[bytes], int]:
    """Last time's port if it is free, for whoever wrote it down; else any. Raises EmbeddedError."""
    for _ in range(PORT_TRIES):
        port = _kept_port(kept)
        try:
            process = launch(port)
        except PortTaken:
            kept.unlink(missing_ok=True)
            continue
        kept.write_text(f"{port}\n", encoding="ascii")
        return process, port
    raise EmbeddedError(f"{PORT_TRIES} free ports in a row were taken before we could use them: try again")


def _kept_port(kept: Path) -> int:
    port = _read_port(kept)
    return port if port and is_port_free(port) else find_free_port()


def left_behind(kept: Path) -> int | None:
    """Last time's port, where somebody listens: a server whose starter was killed, on a system that cannot tell it."""
    port = _read_port(kept)
    return port if port and not is_port_free(port) else None


def _read_port(kept: Path) -> int | None:
    try:
        port = int(kept.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return port if 0 < port <= LAST_PORT else None


def kept_password(path: Path) -> str:
    """The password of last time, or a new one that is kept, readable by us alone."""
    try:
        return path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        pass
    password = secrets.token_hex(16)
    with open(path, "x", encoding="ascii", opener=private) as file:
        file.write(password)
    return password


def private(path: str, flags: int) -> int:
    """For open()'s opener: a new file is ours alone from its first byte on."""
    return os.open(path, flags, 0o600)


def find_package_folder(name: str) -> Path:
    """Where a wheel lies, without running its code. Raises EmbeddedError."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedError(f"{name} is not installed: make setup, or pip install 'tokenkeeper[sandbox]'")
    return Path(next(iter(spec.submodule_search_locations)))
