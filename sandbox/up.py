"""The whole product on one machine, in the foreground: embedded servers, migrations, every process, until Ctrl-C."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from deploy.init_secrets import IncompleteApp
from sandbox.banner import format_banner
from sandbox.dotenv import DotenvError, read_dotenv
from sandbox.embedded import EmbeddedError
from sandbox.embedded.server import open_private
from sandbox.given_database import confirm_database
from sandbox.readiness import make_http_check, make_sweep_check, wait_for
from sandbox.run_config import (
    InvalidPort,
    RunConfig,
    choose_ports,
    load_secrets,
    make_run_config,
    merge_settings,
    needs_simulator,
)
from sandbox.servers import Servers, run_servers
from sandbox.shell_env import write_psql_script, write_shell_settings
from sandbox.supervision import ProcessEnded, run_processes
from shared.db.schema.migrate import migrate
from shared.settings import Settings

STATE_FOLDER = ".tokenkeeper"
CHILD_ENVIRONMENT = {
    "PYTHONUNBUFFERED": "1",
    # Celery warns in nine lines; on a newcomer's machine root may be the only account.
    "PYTHONWARNINGS": "ignore:You're running the worker with superuser privileges",
}


class UpFailed(Exception):
    """It cannot start here, or had to stop; the message is one line that says what to do."""


def run_up(environ: Mapping[str, str], folder: Path, confirm: Callable[[str], object]) -> None:
    """Runs until Ctrl-C or SIGTERM. State lies in `folder`/.tokenkeeper.

    `confirm` is told of a database that this has not made, and raises where it is not to be used.
    Raises UpFailed, SettingsError, SchemaError, StoreUnavailable.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # until honcho installs its own, SIGTERM acts as Ctrl-C
    signal.signal(signal.SIGHUP, lambda *_: os.kill(os.getpid(), signal.SIGTERM))  # the terminal was closed
    try:
        with ExitStack() as stack:
            _run(stack, environ, folder, confirm)
    except KeyboardInterrupt:
        pass
    except (EmbeddedError, InvalidPort, IncompleteApp, ProcessEnded, DotenvError) as error:
        raise UpFailed(str(error)) from None
    say("stopped; the data is kept")


def say(line: str) -> None:
    print(f"tokenkeeper: {line}", flush=True)


def _run(stack: ExitStack, environ: Mapping[str, str], folder: Path, confirm: Callable[[str], object]) -> None:
    # 1. Read the settings of the environment and of .env.
    state = _make_state_folder(folder)
    stack.enter_context(_lock(state / "lock"))
    dotenv = read_dotenv(folder / ".env")
    given = merge_settings(environ, dotenv)
    is_simulated = needs_simulator(given)
    if is_simulated:
        given = {name: value for name, value in given.items() if name.removesuffix("_FILE") != "HUBSPOT_PROXY"}
    given_settings = Settings.from_env(given, needs=())  # a malformed setting is reported before anything is written
    if given_settings.database_url:
        confirm_database(given_settings.database_url, say, confirm)
    # 2. Choose the ports, start the servers, migrate.
    ports = choose_ports(given, say, is_simulated=is_simulated)
    secrets = load_secrets(state / "secrets", given)
    servers = stack.enter_context(run_servers(state, given, say, is_simulated=is_simulated))
    config = make_run_config(given, ports, secrets, servers.urls)
    environment = {**given, **config.settings, **CHILD_ENVIRONMENT}
    migrate(Settings.from_env(environment).database_url)
    # 3. Write files for another terminal.
    write_shell_settings(state / "env", {name: environment.get(name, "") for name in {*dotenv, *config.settings}})
    if servers.postgres:
        write_psql_script(state / "psql", servers.postgres, servers.database)
    # 4. Run the processes until they are stopped.
    _run_processes(config, servers, environment, state)


def _run_processes(config: RunConfig, servers: Servers, environment: Mapping[str, str], state: Path) -> None:
    """Until they are stopped; says when everything works. Raises UpFailed where an embedded server ends by itself."""
    settings, ports = Settings.from_env(environment), config.ports
    checks = {
        "web": make_http_check(f"http://127.0.0.1:{ports.web}/readyz"),
        "flower": make_http_check(f"http://127.0.0.1:{ports.flower}/healthcheck"),
        "the first sweep of beat and worker": make_sweep_check(settings.database_url),
    }
    if config.is_simulated:
        checks["simulator"] = make_http_check(f"http://127.0.0.1:{ports.simulator}/_sim/health")
    ended_servers: list[str] = []

    def announce() -> None:
        wait_for(checks, say)
        psql = f"{STATE_FOLDER}/psql" if servers.postgres else ""
        password, addresses = settings.operator_password, servers.addresses()
        print(format_banner(config, password, addresses, psql=psql, env=f"{STATE_FOLDER}/env"), flush=True)

    def stop_when_a_server_ends() -> None:
        ended_servers.append(servers.wait_until_one_ends())
        os.kill(os.getpid(), signal.SIGTERM)  # honcho handles it

    run_processes(config, state, environment, (announce, stop_when_a_server_ends))
    if ended_servers:
        name = ended_servers[0]
        log_folder = servers.by_name()[name].folder
        raise UpFailed(f"{name} ended by itself, so all were stopped: its log is in {log_folder}")


def _make_state_folder(folder: Path) -> Path:
    """Raises UpFailed."""
    state = folder / STATE_FOLDER
    try:
        state.mkdir(exist_ok=True)
        if state.stat().st_uid != os.geteuid():
            raise UpFailed(f"{state} belongs to another user: run this as that user, or move it away")
        state.chmod(0o711)  # as root: PostgreSQL's own account has to pass through
    except OSError as error:
        raise UpFailed(f"{state} cannot be used ({error.strerror}): run this in a folder of your own") from None
    return state


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """One run per folder; the kernel drops the lock when the process ends. Raises UpFailed."""
    with open(path, "a+", encoding="ascii", opener=open_private) as file:
        try:
            # lockf, not flock: honcho's forks do not inherit it
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise UpFailed(f"tokenkeeper up already runs in this folder (process {holder}): stop it first") from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
