"""PostgreSQL 18: made on the first start, found again on the next, on loopback TCP with a password."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from sandbox.child_processes import stop_process
from sandbox.embedded.data_dir import SYSTEM_HOME, Place
from sandbox.embedded.server import EmbeddedError, Launch, kept_password, left_behind, start_on_some_port

USER = "tokenkeeper"
START_SECONDS = 60.0
READY_LINE = 8  #: of postmaster.pid

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # a socket's path may not be longer than 107 bytes; ours may
    "timezone": "UTC",
    "log_timezone": "UTC",
    "max_connections": "200",
    "shared_buffers": "128MB",
    # psycopg2 binds on the client: a failing statement would be logged with the tokens in it
    "log_min_error_statement": "panic",
    # else a row that a constraint refuses is logged, the first 64 characters of each column
    "log_error_verbosity": "terse",
}
_FORGETFUL = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


class EmbeddedPostgres:
    """One server. `durable=False` is for tests: quicker, and gone when the machine stops.

    Start it from the main thread: where that ends, however it ends, the server stops (Linux). Elsewhere a killed
    starter leaves it behind, and the next start on the same folder stops it first: one at a time per folder.
    """

    def __init__(self, state: Path, *, durable: bool = True, system_home: Path = SYSTEM_HOME) -> None:
        self._state = state
        self._durable = durable
        self._system_home = system_home
        self.process: subprocess.Popen[bytes] | None = None
        self.port = 0
        self.home = state
        self.binaries = Path()
        self._password = ""

    def start(self) -> None:
        """Raises EmbeddedError."""
        place = Place.below(self._state, self._system_home)
        self.home, self.binaries = place.home, place.binaries
        self._password = kept_password(place.home / "password")
        if not (place.home / "data").exists():
            self._initialise(place)
        if left_behind(place.home / "port"):
            self._run(place, [str(place.binaries / "pg_ctl"), "stop", "-D", str(place.home / "data")], check=False)
        self.process, self.port = start_on_some_port(lambda port: self._launch(place, port), place.home / "port")

    def stop(self) -> None:
        """Fast shutdown: whoever is connected is cut off, everything committed is kept."""
        if self.process is not None:
            stop_process(self.process, signal.SIGINT, patience=30)
            self.process = None

    def url(self, database: str = "postgres") -> str:
        """Where to connect as the superuser; holds the password."""
        return f"postgresql://{USER}:{self._password}@127.0.0.1:{self.port}/{database}"

    def _initialise(self, place: Place) -> None:
        """Under another name until it is whole: a start that was killed half-way is begun again."""
        half = place.home / "data.new"
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir(mode=0o700)
        place.account.own(half)
        password = place.home / "password"
        place.account.own(password)
        argv = [place.binaries / "initdb", "-D", half, "-U", USER, "--auth=scram-sha-256", "--pwfile", password]
        # The builtin locale sorts alike on every machine.
        argv += ["--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
        argv += ["--no-instructions", *([] if self._durable else ["--no-sync"])]
        self._run(place, [str(part) for part in argv])
        half.rename(place.home / "data")

    def _run(self, place: Place, argv: Sequence[str], *, check: bool = True) -> None:
        made = subprocess.run(  # type: ignore[call-overload]
            argv,
            cwd=place.home,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            **place.account.popen_arguments(),
        )
        if check and made.returncode:
            said = made.stderr.decode(errors="replace").strip()
            raise EmbeddedError(f"PostgreSQL's initdb failed in {place.home}: {said}")

    def _launch(self, place: Place, port: int) -> subprocess.Popen[bytes]:
        settings = _SETTINGS | ({} if self._durable else _FORGETFUL) | {"port": str(port)}
        argv = [str(place.binaries / "postgres"), "-D", str(place.home / "data")]
        for name, value in settings.items():
            argv += ["-c", f"{name}={value}"]
        launch = Launch(
            name="PostgreSQL",
            argv=argv,
            folder=place.home,
            log=place.home / "postgres.log",
            stop_signal=signal.SIGINT,
            environment=_environment(),
            account=place.account,
        )
        return launch.start(
            lambda process: _is_ready(place.home / "data" / "postmaster.pid", process.pid), START_SECONDS
        )


def _environment() -> dict[str, str]:
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


def _is_ready(pid_file: Path, pid: int) -> bool:
    try:
        lines = pid_file.read_text(encoding="utf-8").splitlines()
        return int(lines[0]) == pid and len(lines) >= READY_LINE and lines[READY_LINE - 1].strip() == "ready"
    except (OSError, ValueError, IndexError):
        return False
