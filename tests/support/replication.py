"""A standby of an embedded PostgreSQL, which tests let fall behind and promote, and names that lead to servers."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import psycopg2

from sandbox.embedded import EmbeddedPostgres
from sandbox.embedded.data_dir import choose_data_directory
from tests.support.fault_deployment import FaultDeployment, ReconnectingSql
from tests.support.folders import server_folder
from tests.support.polling import until
from tests.support.stores import SqlFixture
from tests.support.tcp_proxy import TcpProxy


class Standby(EmbeddedPostgres):
    """A hot standby with streaming replication, asynchronous unless the primary's settings say otherwise."""

    def __init__(self, primary: EmbeddedPostgres, folder: Path) -> None:
        super().__init__(folder, durable=True)
        directory = choose_data_directory(folder)
        url = urlsplit(primary.url())
        shutil.copy(primary.folder / "password", directory.folder / "password")
        data = directory.folder / "data"
        data.mkdir(mode=0o700)
        directory.account.take_ownership(data)
        subprocess.run(  # type: ignore[call-overload]
            [
                *(str(directory.binaries / "pg_basebackup"), "--pgdata", str(data)),
                *("--host", "127.0.0.1", "--port", str(primary.port), "--username", str(url.username)),
                *("--checkpoint=fast", "--no-sync", "--write-recovery-conf"),
            ],
            cwd=directory.folder,
            env={"PATH": os.defpath, "PGPASSWORD": str(url.password)},
            stdin=subprocess.DEVNULL,
            check=True,
            **directory.account.popen_arguments(),
        )
        self.start()

    def stop_receiving(self) -> None:
        """From now on it lacks what the primary commits."""
        sql = self.open_sql()
        sql.rows("ALTER SYSTEM SET primary_conninfo = ''")
        sql.rows("SELECT pg_reload_conf()")
        until(lambda: not sql.rows("SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming'"))

    def has_received(self, primary: EmbeddedPostgres) -> bool:
        """Whether it has replayed everything that the primary has committed so far."""
        written = open_sql(primary).value("SELECT pg_current_wal_lsn()::text")
        return bool(self.open_sql().value("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", written))

    def promote(self) -> None:
        self.open_sql().rows("SELECT pg_promote()")

    def open_sql(self) -> SqlFixture:
        return open_sql(self)


class Names:
    """What the product's URLs lead to, as a name does that a failover changes."""

    def __init__(self, deployment: FaultDeployment, stack: ExitStack) -> None:
        self.deployment = deployment
        self._stack = stack
        servers = deployment.servers
        self._first_primary = servers.postgres
        stack.callback(self.restart_first_primary)
        self.postgres = stack.enter_context(TcpProxy("127.0.0.1", servers.postgres.port))
        self.redis = stack.enter_context(TcpProxy("127.0.0.1", servers.valkey.port))
        environment = deployment.product.environment
        environment["DATABASE_URL"] = self.postgres.lead(environment["DATABASE_URL"])
        environment["REDIS_URL"] = self.redis.lead(environment["REDIS_URL"])
        deployment.database_url = environment["DATABASE_URL"]
        deployment.sql = ReconnectingSql(deployment.database_url)
        stack.callback(deployment.sql.close)

    def add_standby(self) -> Standby:
        primary = self.deployment.servers.postgres
        standby = Standby(primary, self._stack.enter_context(server_folder("standby")))
        self._stack.callback(standby.stop)
        until(lambda: standby.has_received(primary))
        return standby

    def fail_over(self, standby: Standby) -> None:
        """The primary dies at once, and the standby takes its place with what it has."""
        kill(self.deployment.servers.postgres)
        standby.promote()
        self.lead_to(standby)
        self.deployment.servers.postgres = standby

    def restart_first_primary(self) -> None:
        """The end of the deployment drops its database there."""
        self.deployment.servers.postgres = self._first_primary
        if self._first_primary.process is None:
            self._first_primary.start()

    def lead_to(self, server: EmbeddedPostgres) -> None:
        self.postgres.target = ("127.0.0.1", server.port)


def open_sql(server: EmbeddedPostgres, database: str = "postgres") -> SqlFixture:
    connection = psycopg2.connect(server.url(database))
    connection.autocommit = True
    return SqlFixture(connection)


def kill(server: EmbeddedPostgres) -> None:
    """As if the machine were switched off: no process of it answers or writes any more."""
    assert server.process is not None
    main = psutil.Process(server.process.pid)
    for process in [main, *main.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):  # it has ended since it was listed
            process.kill()
    server.process.wait(30)
    server.process = None
