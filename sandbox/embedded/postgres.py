"""An embedded PostgreSQL 18: initialised on the first start, reused on the next, on loopback TCP with a password."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from sandbox.child_processes import stop_process
from sandbox.embedded.data_dir import SYSTEM_FOLDER, DataDirectory, choose_data_directory
from sandbox.embedded.server import (
    EmbeddedError,
    FilesInUse,
    Launch,
    find_orphan_port,
    load_password,
    start_on_free_port,
)

USER = "tokenkeeper"
START_SECONDS = 60.0
STOP_SECONDS = 30.0
FILES_IN_USE_PAUSE_SECONDS = 0.2
STATUS_LINE = 8  #: of postmaster.pid
READY = ("ready", "standby")  #: the status once connections are accepted

_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # a socket's path is limited to 107 bytes, and the folder's may be longer
    "timezone": "UTC",
    "log_timezone": "UTC",
    "max_connections": "200",
    "shared_buffers": "128MB",
    # Memory that the server fills at its start, and never needs here: reads are short, so that they need no processes
    # of their own and few handles; no transaction is SERIALIZABLE, and none locks many tables.
    "io_method": "sync",
    "io_max_concurrency": "4",
    "max_pred_locks_per_transaction": "10",
    "max_locks_per_transaction": "32",
    "wal_buffers": "2MB",
    # Nothing subscribes to another server: no launcher of such workers.
    "max_logical_replication_workers": "0",
    # A look for tables to be vacuumed, in each database, takes 30 ms of CPU: every three minutes, not every minute.
    "autovacuum_naptime": "3min",
    # It writes what commits leave to it: nothing, while they are synchronous.
    "wal_writer_delay": "1s",
    # psycopg2 binds on the client: a failing statement would be logged with the tokens in it
    "log_min_error_statement": "panic",
    # otherwise a row that a constraint refuses is logged, the first 64 characters of each column
    "log_error_verbosity": "terse",
}
_NOT_DURABLE = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    # It may analyze a table at a moment when a test has emptied it: PostgreSQL would then plan for few rows.
    "autovacuum": "off",
}


class EmbeddedPostgres:
    """One server. `durable=False` is for tests: faster, and a crash of the machine loses its data.

    Start it from the main thread: when that ends, however it ends, Linux stops the server. On other systems a
    killed parent leaves the server running, and the next start with the same folder stops it first.
    One server per folder at a time.
    """

    def __init__(self, state: Path, *, durable: bool = True, system_folder: Path = SYSTEM_FOLDER) -> None:
        self._state = state
        self._durable = durable
        self._system_folder = system_folder
        self.process: subprocess.Popen[bytes] | None = None
        self.port = 0
        self.folder = state
        self.binaries = Path()
        self._password = ""

    def start(self) -> None:
        """Raises EmbeddedError."""
        directory = choose_data_directory(self._state, self._system_folder)
        self.folder, self.binaries = directory.folder, directory.binaries
        self._password = load_password(self.folder / "password")
        if not (self.folder / "data").exists():
            self._initialise(directory)
        if find_orphan_port(self.folder / "port"):
            argv = [str(self.binaries / "pg_ctl"), "stop", "-D", str(self.folder / "data")]
            self._run(directory, argv, check=False)
        self.process, self.port = start_on_free_port(lambda port: self._launch(directory, port), self.folder / "port")

    def stop(self) -> None:
        """Fast shutdown: clients are disconnected, everything that was committed stays."""
        if self.process is not None:
            stop_process(self.process, signal.SIGINT, STOP_SECONDS)
            self.process = None

    def url(self, database: str = "postgres") -> str:
        """The superuser's URL, which contains the password."""
        return f"postgresql://{USER}:{self._password}@127.0.0.1:{self.port}/{database}"

    def _initialise(self, directory: DataDirectory) -> None:
        """Works under another name until it is complete: a start that was killed half-way is repeated from zero."""
        partial = directory.folder / "data.new"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(mode=0o700)
        password = directory.folder / "password"
        directory.account.take_ownership(partial)
        directory.account.take_ownership(password)
        argv = [directory.binaries / "initdb", "-D", partial, "-U", USER, "--auth=scram-sha-256", "--pwfile", password]
        # The builtin locale sorts alike on every machine.
        argv += ["--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
        # The password has 128 random bits: 4,096 iterations, the default, would only slow down each connection.
        argv += ["--set", "scram_iterations=1", "--no-instructions", *([] if self._durable else ["--no-sync"])]
        self._run(directory, [str(part) for part in argv])
        partial.rename(directory.folder / "data")

    def _run(self, directory: DataDirectory, argv: Sequence[str], *, check: bool = True) -> None:
        result = subprocess.run(  # type: ignore[call-overload]
            argv,
            cwd=directory.folder,
            env=_ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            **directory.account.popen_arguments(),
        )
        if check and result.returncode:
            output = result.stderr.decode(errors="replace").strip()
            raise EmbeddedError(f"PostgreSQL's initdb failed in {directory.folder}: {output}")

    def _launch(self, directory: DataDirectory, port: int) -> subprocess.Popen[bytes]:
        settings = _SETTINGS | ({} if self._durable else _NOT_DURABLE) | {"port": str(port)}
        data = directory.folder / "data"
        launch = Launch(
            name="PostgreSQL",
            argv=[
                *(str(directory.binaries / "postgres"), "-D", str(data)),
                *(part for name, value in settings.items() for part in ("-c", f"{name}={value}")),
            ],
            folder=directory.folder,
            log=directory.folder / "postgres.log",
            stop_signal=signal.SIGINT,
            environment=_ENVIRONMENT,
            account=directory.account,
        )
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                return launch.start(lambda process: _is_ready(data / "postmaster.pid", process.pid), START_SECONDS)
            except FilesInUse:  # by children of a server that was killed: each ends as soon as it notices that
                if time.monotonic() > deadline:
                    raise
            time.sleep(FILES_IN_USE_PAUSE_SECONDS)


def _is_ready(pid_file: Path, pid: int) -> bool:
    try:
        lines = pid_file.read_text(encoding="utf-8").splitlines()
        return int(lines[0]) == pid and len(lines) >= STATUS_LINE and lines[STATUS_LINE - 1].strip() in READY
    except (OSError, ValueError, IndexError):
        return False
