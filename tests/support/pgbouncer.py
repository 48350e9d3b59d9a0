"""PgBouncer in transaction mode: a few connections to PostgreSQL, handed from one transaction to the next."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from sandbox.child_processes import die_with_parent, stop_process
from sandbox.ports import find_free_port
from tests.journeys.world import until

#: Where Debian puts it, which is not on everybody's PATH.
BINARY = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")
#: Connections to PostgreSQL, for each login: fewer than one of our processes may ask for.
SERVER_CONNECTIONS = 3


class Bouncer:
    """Before the server of `database_url`, whose login may come through it, and those of `passwords`. All defaults."""

    def __init__(self, folder: Path, database_url: str, passwords: Mapping[str, str]) -> None:
        self.port = find_free_port()
        self._folder = folder
        self._server = urlsplit(database_url)
        self._passwords = {str(self._server.username): str(self._server.password), **passwords}
        self._process: subprocess.Popen[bytes] | None = None

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
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [BINARY, str(self._folder / "pgbouncer.ini")],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_parent(signal.SIGINT),  # noqa: PLW1509  one call into libc
                user="nobody" if os.getuid() == 0 else None,  # it will not run as root
            )
        until(self._listens)

    def stop(self) -> None:
        if self._process:
            stop_process(self._process, signal.SIGINT, patience=10)

    def url(self, url: str) -> str:
        """That login's, through here."""
        parts = urlsplit(url)
        return parts._replace(netloc=f"{parts.username}:{parts.password}@127.0.0.1:{self.port}").geturl()

    def _listens(self) -> bool:
        assert self._process
        assert self._process.poll() is None, (self._folder / "log").read_text()
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False
