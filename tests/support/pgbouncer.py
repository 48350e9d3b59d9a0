"""PgBouncer in transaction mode, where each transaction may run on another connection to PostgreSQL."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from sandbox.child_processes import ChildProcess
from sandbox.ports import find_free_port

#: Debian installs it into /usr/sbin, which is not on every PATH.
BINARY = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")
#: Connections to PostgreSQL for each login: fewer than one of our processes may ask for.
SERVER_CONNECTIONS = 3


class Bouncer:
    """A pooler in front of the server of `database_url`, for the login in that URL and those of `passwords`."""

    def __init__(self, folder: Path, database_url: str, passwords: Mapping[str, str]) -> None:
        self.port = find_free_port()
        self._folder = folder
        self._server = urlsplit(database_url)
        self._passwords = {str(self._server.username): str(self._server.password), **passwords}
        self._process: ChildProcess | None = None

    def start(self) -> None:
        assert BINARY
        users = "".join(f'"{name}" "{password}"\n' for name, password in self._passwords.items())
        settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": self.port,
            "unix_socket_dir": "",
            "auth_type": "scram-sha-256",
            "auth_file": self._folder / "users.txt",
            "pool_mode": "transaction",
            "default_pool_size": SERVER_CONNECTIONS,
            "max_client_conn": 500,
        }
        lines = [
            "[databases]",
            f"* = host={self._server.hostname} port={self._server.port}",
            "[pgbouncer]",
            *(f"{key} = {value}" for key, value in settings.items()),
        ]
        (self._folder / "users.txt").write_text(users, encoding="ascii")
        (self._folder / "pgbouncer.ini").write_text("\n".join(lines) + "\n", encoding="ascii")
        self._process = ChildProcess(
            "pgbouncer",
            [BINARY, str(self._folder / "pgbouncer.ini")],
            os.environ,
            self._folder / "log",
            cwd=self._folder,
            stop_signal=signal.SIGINT,
            user="nobody" if os.getuid() == 0 else None,  # it refuses to run as root
        )
        self._process.wait_until(self._accepts_connections)

    def stop(self) -> None:
        if self._process:
            self._process.stop(10)

    def url(self, url: str) -> str:
        """The same login's URL, through the pooler."""
        parts = urlsplit(url)
        return parts._replace(netloc=f"{parts.username}:{parts.password}@127.0.0.1:{self.port}").geturl()

    def _accepts_connections(self, _: ChildProcess) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False
