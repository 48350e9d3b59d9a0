"""`tokenkeeper up`: from nothing to a token in SQL, stopped, started again, killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil  # type: ignore[import-untyped]
import pytest
import requests

from sandbox.child_processes import ChildProcess
from sandbox.ports import find_free_port
from sandbox.simulator.control import SimulatorControl
from tests.support.environment import inherited_environment
from tests.support.folders import server_folder
from tests.support.polling import until

HUB = 62515
TOKENKEEPER = str(Path(sys.executable).parent / "tokenkeeper")
UP = "tokenkeeper is up."


class Home:
    """A folder in which `tokenkeeper up` runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = inherited_environment()
        for name in ("WEB_PORT", "FLOWER_PORT", "SIMULATOR_PORT"):
            self.environment[name] = str(find_free_port())
        self.options: tuple[str, ...] = ()
        self.runs: list[ChildProcess] = []

    def up(self, **changes: str) -> ChildProcess:
        return self.start(**changes).wait_until(lambda running: running.has_printed(UP))

    def start(self, **changes: str) -> ChildProcess:
        """Does not wait until it is up, which costs seconds of CPU time."""
        log = self.folder / f"up-{len(self.runs)}.log"
        run = ChildProcess(
            "up", [TOKENKEEPER, "up", *self.options], {**self.environment, **changes}, log, cwd=self.folder
        )
        self.runs.append(run)
        return run

    def fails(self, **changes: str) -> subprocess.CompletedProcess[str]:
        """With a stdin that is no terminal."""
        return subprocess.run(
            [TOKENKEEPER, "up"],
            cwd=self.folder,
            env={**self.environment, **changes},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def ask(self, statement: str) -> str:
        """The result of a statement, by the psql command that the banner shows."""
        command = [".tokenkeeper/psql", "-At", "-c", statement]
        asked = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=True, timeout=60)
        return asked.stdout.strip()

    def wait_for(self, statement: str, seconds: float = 60.0) -> str:
        deadline = time.monotonic() + seconds
        while not (answer := self.ask(statement)):
            assert time.monotonic() < deadline, f"no answer in {seconds:g} s to: {statement}"
            time.sleep(0.1)
        return answer

    def control(self) -> SimulatorControl:
        return SimulatorControl(f"http://127.0.0.1:{self.environment['SIMULATOR_PORT']}")

    def connect_an_account(self) -> None:
        with requests.Session() as browser, self.control() as simulator:
            browser.trust_env = False
            start = browser.get(f"http://localhost:{self.environment['WEB_PORT']}/install", allow_redirects=False)
            page = browser.get(simulator.allow(start.headers["Location"], HUB))
            assert page.status_code == 200

    def stop(self) -> None:
        for run in self.runs:
            run.stop()


@contextmanager
def a_home() -> Iterator[Home]:
    with server_folder("up") as folder:
        home = Home(folder)
        try:
            yield home
        finally:
            home.stop()


#: Of the settings of this run.
SECRETS = {"DATABASE_URL", "REDIS_URL", "HUBSPOT_CLIENT_SECRET", "TOKEN_KEYS", "SECRET_KEY", "OPERATOR_PASSWORD"}


@pytest.fixture
def home() -> Iterator[Home]:
    with a_home() as home:
        yield home


@pytest.fixture(scope="module")
def lasting_home() -> Iterator[Home]:
    """The folder of the tests that share a running `up`."""
    with a_home() as home:
        yield home


@pytest.fixture
def running(lasting_home: Home) -> ChildProcess:
    """The `up` that an earlier test has left running, else another one: its start takes seconds of CPU time."""
    left = [run for run in lasting_home.runs if run.status is None]
    return left[0] if left else lasting_home.up()


def family(run: ChildProcess) -> list[psutil.Process]:
    return [*psutil.Process(run.pid).children(recursive=True), psutil.Process(run.pid)]


def find_remaining(processes: list[psutil.Process], seconds: float = 60.0) -> list[str]:
    """The command lines of the processes that still run."""
    _, left = psutil.wait_procs(processes, timeout=seconds)
    return [line for process in left if (line := read_command_line(process))]


def read_command_line(process: psutil.Process) -> str:
    """Empty where the process has ended."""
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""


def find_process(run: ChildProcess, words: str) -> psutil.Process:
    """The process itself, not its supervisor."""
    lines = {process: read_command_line(process) for process in family(run)}
    processes = [each for each, line in lines.items() if words in line and "respawn" not in line]
    return min(processes, key=lambda each: each.create_time())


def test_an_account_outlives_a_stop_of_up(lasting_home: Home) -> None:
    home = lasting_home
    first = home.up()
    home.connect_an_account()
    token = home.wait_for(f"SELECT access_token FROM hubspot.tokens WHERE hub_id = {HUB}")
    with home.control() as simulator:
        assert simulator.check_tokens([token])[0].is_live

    second = home.fails()
    assert second.returncode == 1
    assert (
        second.stderr
        == f"tokenkeeper: tokenkeeper up already runs in this folder (process {first.pid}): stop it first\n"
    )

    processes = family(first)
    first.kill(signal.SIGINT)  # Ctrl-C goes to the whole group
    assert first.wait(60) == 0
    assert first.output().endswith("tokenkeeper: stopped; the data is kept\n")
    assert find_remaining(processes) == []

    again = home.up()
    assert password(again) == password(first)
    assert home.ask(f"SELECT status FROM hubspot.connections WHERE hub_id = {HUB}") == "active"
    with home.control() as simulator:
        later = home.wait_for(f"SELECT access_token FROM hubspot.tokens WHERE hub_id = {HUB}")
        assert simulator.check_tokens([later])[0].is_live
    assert not re.search(r"Traceback|\berror\b", again.output())


def test_a_crashed_process_is_started_again(running: ChildProcess) -> None:
    running.wait_until(lambda running: running.has_printed(" ready."))
    find_process(running, "-A worker.app worker").kill()
    running.wait_until(lambda running: running.has_printed("was killed by SIGKILL; starting it again in 0.5 s"))
    running.wait_until(lambda running: running.output().count(" ready.") == 2)


def test_no_secret_shows_in_the_process_list_or_to_other_users(lasting_home: Home, running: ChildProcess) -> None:
    state = lasting_home.folder / ".tokenkeeper"
    secrets = [path.read_text().strip() for path in (state / "secrets").iterdir()]
    secrets += [(state / server / "password").read_text() for server in ("postgres", "valkey")]

    shown = "\n".join(read_command_line(process) for process in family(running))

    assert not [secret for secret in secrets if secret in shown]
    assert running.output().count(password(running)) == 1
    assert (state / "env").stat().st_mode & 0o777 == 0o600
    assert (state / "psql").stat().st_mode & 0o777 == 0o700
    assert not [secret for secret in secrets if secret in (state / "psql").read_text()]


def test_each_process_gets_only_the_secrets_that_it_needs(running: ChildProcess) -> None:
    given = {
        words: SECRETS & find_process(running, words).environ().keys()
        for words in ("web.wsgi:app", "-A worker.app worker", "-A worker.app beat", "flower", "sandbox.simulator")
    }
    assert given == {
        "web.wsgi:app": SECRETS,
        "-A worker.app worker": SECRETS - {"SECRET_KEY", "OPERATOR_PASSWORD"},
        "-A worker.app beat": {"REDIS_URL"},
        "flower": {"REDIS_URL", "OPERATOR_PASSWORD"},
        "sandbox.simulator": {"HUBSPOT_CLIENT_SECRET"},
    }


def run_in_another_terminal(home: Home, command: str) -> str:
    environment = {"PATH": os.defpath, "HOME": os.environ.get("HOME", "/")}
    line = f". .tokenkeeper/env && {command}"
    asked = subprocess.run(
        line, shell=True, cwd=home.folder, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert asked.returncode == 0, asked.stderr
    return asked.stdout


@pytest.mark.usefixtures("running")
def test_the_settings_for_another_terminal_are_complete(lasting_home: Home) -> None:
    assert "active" in run_in_another_terminal(lasting_home, "tokenkeeper status")


@pytest.mark.usefixtures("running")
def test_a_connect_link_made_in_another_terminal_opens_the_page_of_its_customer(lasting_home: Home) -> None:
    link = run_in_another_terminal(lasting_home, "tokenkeeper link --customer acme").strip()

    page = requests.get(link, timeout=60)

    assert page.status_code == 200
    assert "acme" in page.text


def test_flower_shows_the_worker_and_its_tasks(lasting_home: Home, running: ChildProcess) -> None:
    """The worker sends events of tasks only while Flower asks for them."""
    url = f"http://127.0.0.1:{lasting_home.environment['FLOWER_PORT']}"

    def read(path: str) -> dict[str, Any]:
        found: dict[str, Any] = requests.get(f"{url}{path}", auth=("operator", password(running)), timeout=60).json()
        return found

    until(lambda: "tokenkeeper.sweep" in {task["name"] for task in read("/api/tasks?limit=20").values()})
    until(lambda: [*read("/api/workers?status=true").values()] == [True])


def test_when_a_server_exits_up_stops_all_processes_and_names_the_server(running: ChildProcess) -> None:
    """The last of the tests that share a running `up`."""
    processes = family(running)

    find_process(running, "valkey-server").kill()

    assert running.wait(60) == 1
    assert "tokenkeeper: Valkey ended by itself, so all were stopped: its log is in" in running.output()
    assert find_remaining(processes) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"HUBSPOT_CLIENT_ID": "an-id-of-mine"}, "HUBSPOT_CLIENT_SECRET, HUBSPOT_SCOPES"),
        ({"TOKEN_KEYS": "not-a-key-at-all"}, "TOKEN_KEYS is malformed"),
        ({"OPERATOR_PASSWORD": "short"}, "OPERATOR_PASSWORD is malformed"),
        ({"WEB_PORT": "a-port"}, "WEB_PORT is malformed"),
        ({"DATABASE_URL": "mysql://me@here/db"}, "DATABASE_URL is malformed"),
    ],
)
def test_an_invalid_setting_is_reported_in_one_line_and_nothing_is_written(
    home: Home, changes: dict[str, str], message: str
) -> None:
    failed = home.fails(**changes)

    assert failed.returncode == 1
    assert message in failed.stderr
    assert failed.stderr.count("\n") == 1
    assert next(iter(changes.values())) not in failed.stderr
    assert not (home.folder / ".tokenkeeper" / "secrets").exists()
    assert not (home.folder / ".tokenkeeper" / "postgres").exists()


def test_a_database_of_another_project_is_left_alone_unless_told_otherwise_and_a_killed_up_leaves_no_process_behind(
    home: Home, empty_database_url: str, connect: Callable[..., Any]
) -> None:
    connect(empty_database_url).cursor().execute("CREATE TABLE public.orders ()")
    name = urlsplit(empty_database_url).path[1:]

    failed = home.fails(DATABASE_URL=empty_database_url, PGSSLMODE="require")

    assert (failed.returncode, failed.stderr.count("\n")) == (2, 1)
    assert (
        f"DATABASE_URL names database {name} at 127.0.0.1, which tokenkeeper has not made: add --yes" in failed.stderr
    )
    assert not (home.folder / ".tokenkeeper" / "secrets").exists()
    cursor = connect(empty_database_url).cursor()
    cursor.execute("SELECT count(*) FROM pg_namespace WHERE nspname IN ('hubspot', 'tokenkeeper')")
    assert cursor.fetchone() == (0,)

    home.options = ("--yes",)
    run = home.up(DATABASE_URL=empty_database_url, PGSSLMODE="require", CELERY_BROKER_URL="redis://127.0.0.1:1/0")
    home.connect_an_account()
    cursor.execute("SELECT count(*) FROM hubspot.connections")
    if sys.platform == "linux":  # only Linux tells a child that its parent was killed
        processes = family(run)
        run.send_signal(signal.SIGKILL)
        assert find_remaining(processes) == []
    run.stop()

    home.options = ()
    again = home.start(DATABASE_URL=empty_database_url)
    again.wait_for_output(f"tokenkeeper: uses database {name} at 127.0.0.1, which DATABASE_URL names")


def test_an_invalid_line_of_dotenv_is_reported_by_its_number(home: Home) -> None:
    (home.folder / ".env").write_text("LOG_LEVEL=info\nmy-secret\n")

    failed = home.fails()

    assert (failed.returncode, failed.stderr) == (1, "tokenkeeper: .env, line 2: this should read NAME=value\n")


def password(run: ChildProcess) -> str:
    match = re.search(r"user operator, password (\S+)", run.output())
    assert match is not None
    return match[1]
