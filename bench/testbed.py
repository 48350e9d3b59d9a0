"""What every figure of a run is measured on: real servers, settings of a real product, one simulated HubSpot."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psycopg2
import requests

from sandbox.child_processes import LOG_TAIL_CHARACTERS, ROOT, ChildProcess, installed_command
from sandbox.embedded import EmbeddedPostgres, EmbeddedValkey
from sandbox.embedded.databases import create_database
from sandbox.ports import find_free_port
from sandbox.run_config import Ports, load_secrets, make_run_config

#: Variables of this process's environment that the product's processes inherit.
INHERITED_NAMES = ("PATH", "HOME", "LANG", "LC_ALL")
#: Makes PostgreSQL record when each row's newest version was committed: the lateness of a refresh is read from it.
TRACK_COMMIT_TIMES = "ALTER SYSTEM SET track_commit_timestamp = on"
#: The simulated one answers after so long.
HUBSPOT_DELAY_SECONDS = 0.2
POLL_SECONDS = 0.05
REQUEST_TIMEOUT_SECONDS = 20.0


class BenchmarkError(Exception):
    """Something of the run did not work, so that its figures would mean nothing."""


@dataclass(frozen=True, slots=True)
class HubSpotCounters:
    """What the simulated HubSpot has answered so far."""

    read_at: float  #: seconds, by the machine's monotonic clock
    answers: dict[str, int]  #: by kind: refresh, code, introspection
    overlaps: int  #: refreshes of a hub while another refresh of it was in flight
    waiting: int  #: requests that have not been answered yet

    @property
    def refreshes(self) -> int:
        return self.answers.get("refresh", 0)


class SimulatedHubSpot:
    """A running `bench.hubspot`: reads its counters and changes its behaviour."""

    def __init__(self, process: ChildProcess, port: int) -> None:
        self.process = process
        self.port = port
        self._session = requests.Session()
        self._session.trust_env = False

    def configure(self, token_seconds: int, *, delay_seconds: float = HUBSPOT_DELAY_SECONDS) -> None:
        """How long an answer takes, and how long an access token lives. Only while no request is waiting."""
        self._get(f"?delay={delay_seconds}&life={token_seconds}")

    def read_counters(self) -> HubSpotCounters:
        return HubSpotCounters(**self._get(""))

    def count_refreshes(self) -> int:
        return self.read_counters().refreshes

    def take_newest_tokens(self) -> dict[int, int]:
        """By hub id, the serial number of the last token that it was given since the last call of this."""
        return {int(hub_id): serial for hub_id, serial in self._get("/newest").items()}

    def wait_until_idle(self) -> None:
        """Requests of clients that were killed are still answered."""
        while self.read_counters().waiting:
            time.sleep(POLL_SECONDS)

    def _get(self, path: str) -> Any:
        url = f"http://127.0.0.1:{self.port}/bench{path}"
        return self._session.get(url, timeout=REQUEST_TIMEOUT_SECONDS).json()


@dataclass(frozen=True, slots=True)
class Testbed:
    folder: Path
    environment: dict[str, str] = field(repr=False)  #: of the product's processes
    postgres: EmbeddedPostgres
    valkey: EmbeddedValkey
    hubspot: SimulatedHubSpot

    @property
    def database_url(self) -> str:
        return self.environment["DATABASE_URL"]

    def start(self, name: str, command: str, *arguments: str) -> ChildProcess:
        """Starts a command of this Python environment with the product's environment."""
        return start_process(name, [command, *arguments], self.environment, self.folder)

    def run_command(self, name: str, command: str, *arguments: str, stdin: bytes = b"") -> str:
        """What the command prints. Raises BenchmarkError."""
        return run_command(name, [command, *arguments], self.environment, stdin)

    def execute(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """The rows; none where the statement returns nothing."""
        with closing(psycopg2.connect(self.database_url)) as connection:
            connection.autocommit = True  # VACUUM cannot run in a transaction
            with connection.cursor() as cursor:
                cursor.execute(statement, values or None)
                return cursor.fetchall() if cursor.description else []

    def fetch_value(self, statement: str, *values: Any) -> Any:
        return self.execute(statement, *values)[0][0]

    def with_settings(self, **settings: str) -> Testbed:
        return replace(self, environment={**self.environment, **settings})

    def with_redis_database(self, number: int) -> Testbed:
        """The same with another Redis database: a baseline's messages must not reach the product."""
        return self.with_settings(REDIS_URL=self.valkey.url(number))

    def with_new_database(self, name: str, redis_number: int) -> Testbed:
        """The same with an empty database of the product's schema, and a Redis database. Raises BenchmarkError."""
        testbed = self.with_redis_database(redis_number).with_settings(
            DATABASE_URL=create_database(self.postgres, name)
        )
        testbed.run_command("migrate", "tokenkeeper", "migrate")
        return testbed

    def check_free_disk(self, bytes_needed: int) -> None:
        """Raises BenchmarkError where the data's disk has less."""
        free = shutil.disk_usage(self.postgres.folder).free
        if free < bytes_needed:
            raise BenchmarkError(
                f"{self.postgres.folder} needs {bytes_needed / 1e9:.0f} GB and has {free / 1e9:.0f} GB: "
                "choose a smaller SIZE, or another disk by TMPDIR"
            )


@contextmanager
def run_testbed() -> Iterator[Testbed]:
    """In a temporary folder; at the end all its processes have ended. Raises EmbeddedError, ProcessFailed."""
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="tokenkeeper-bench-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.chmod(0o711)  # as root, PostgreSQL runs as another account, which has to pass through
        # 1. PostgreSQL, with commit times, and Valkey
        postgres, valkey = EmbeddedPostgres(folder), EmbeddedValkey(folder)
        stack.callback(lambda: shutil.rmtree(postgres.folder, ignore_errors=True))  # not always inside `folder`
        stack.callback(postgres.stop)
        postgres.start()
        with closing(psycopg2.connect(postgres.url())) as connection:
            connection.autocommit = True
            connection.cursor().execute(TRACK_COMMIT_TIMES)
        postgres.stop()
        postgres.start()
        stack.callback(valkey.stop)
        valkey.start()
        # 2. HubSpot
        secrets = load_secrets(folder / "secrets", {})
        inherited = {name: os.environ[name] for name in INHERITED_NAMES if name in os.environ}  # noqa: TID251
        inherited |= {"PYTHONUNBUFFERED": "1", "TMPDIR": str(folder)}
        hubspot_environment = {**inherited, "HUBSPOT_CLIENT_SECRET": secrets["SIMULATOR_CLIENT_SECRET"]}
        process = start_process("hubspot", ["python", "-m", "bench.hubspot"], hubspot_environment, folder)
        stack.callback(process.kill)
        port = int(process.wait_for_output(r"listens on port (\d+)")[1])
        # 3. the product's settings and its schema
        urls = {"DATABASE_URL": create_database(postgres, "bench"), "REDIS_URL": valkey.url(1)}
        config = make_run_config({}, Ports(web=find_free_port(), flower=0, simulator=port), secrets, urls)
        environment = {**inherited, **config.settings}
        testbed = Testbed(folder, environment, postgres, valkey, SimulatedHubSpot(process, port))
        testbed.run_command("migrate", "tokenkeeper", "migrate")
        yield testbed


def start_process(name: str, argv: Sequence[str], environment: dict[str, str], folder: Path) -> ChildProcess:
    """`argv` begins with the name of a command of this Python environment."""
    command, log = [installed_command(argv[0]), *argv[1:]], folder / f"{name}.log"
    log.unlink(missing_ok=True)  # what the process before it printed must not be taken for this one's
    return ChildProcess(name, command, environment, log)


def run_command(name: str, argv: Sequence[str], environment: dict[str, str], stdin: bytes = b"") -> str:
    """What the command prints. Raises BenchmarkError."""
    command = [installed_command(argv[0]), *argv[1:]]
    result = subprocess.run(command, cwd=ROOT, env=environment, input=stdin, capture_output=True, check=False)
    if result.returncode:
        raise BenchmarkError(f"{name} failed:\n{result.stderr.decode(errors='replace')[-LOG_TAIL_CHARACTERS:]}")
    return result.stdout.decode()
