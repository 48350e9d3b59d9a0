"""The whole product on one machine, in the foreground: embedded servers, migrations, every process, until Ctrl-C."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO

from deploy.init_secrets import Refused
from sandbox import dotenv, supervision
from sandbox.banner import banner
from sandbox.embedded import EmbeddedError
from sandbox.embedded.server import private
from sandbox.readiness import Check, Swept, answers, wait_for
from sandbox.servers import Servers, started
from sandbox.shell_env import write_psql, write_shell_settings
from sandbox.supervision import ProcessRefused
from sandbox.world import (
    BadPort,
    World,
    choose_ports,
    given,
    is_simulated,
    kept_secrets,
    make,
)
from shared.db.schema.migrate import migrate
from shared.settings import Settings

STATE = ".tokenkeeper"
FOR_CHILDREN = {
    "PYTHONUNBUFFERED": "1",
    # On a newcomer's machine, root may well be all there is; Celery says it in nine lines.
    "PYTHONWARNINGS": "ignore:You're running the worker with superuser privileges",
}


class UpFailed(Exception):
    """It cannot start here, or had to stop; the message is one line that says what to do."""


def up(environ: Mapping[str, str], folder: Path) -> None:
    """Until Ctrl-C or SIGTERM. State lies in `folder`/.tokenkeeper.

    Raises UpFailed, SettingsError, SchemaError, StoreUnavailable.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # before honcho takes over, it ends us as Ctrl-C does
    signal.signal(signal.SIGHUP, lambda *_: os.kill(os.getpid(), signal.SIGTERM))  # the terminal was closed
    try:
        with ExitStack() as stack:
            _run(stack, environ, folder)
    except KeyboardInterrupt:
        pass
    except (EmbeddedError, BadPort, Refused, ProcessRefused, dotenv.BadDotenv) as error:
        raise UpFailed(str(error)) from None
    say("stopped; the data is kept")


def say(line: str) -> None:
    print(f"tokenkeeper: {line}", flush=True)


def _run(stack: ExitStack, environ: Mapping[str, str], folder: Path) -> None:
    state = _state(folder)
    stack.enter_context(_locked(state / "lock"))
    file = dotenv.read(folder / ".env")
    asked = given(environ, file)
    simulated = is_simulated(asked)
    Settings.from_env(asked, needs=())  # a malformed one is told before anything is written
    ports = choose_ports(asked, say, simulated=simulated)
    secrets = kept_secrets(state / "secrets", asked)
    servers = stack.enter_context(started(state, asked, say, simulated=simulated))
    world = make(asked, ports, secrets, servers.urls)
    environment = {**asked, **world.settings, **FOR_CHILDREN}
    settings = Settings.from_env(environment)
    migrate(settings.database_url)
    write_shell_settings(state / "env", {name: environment.get(name, "") for name in {*file, *world.settings}})
    if servers.postgres:
        write_psql(state / "psql", servers.postgres, servers.database)
    checks = _checks(world, Swept(settings.database_url))

    def announce() -> None:
        wait_for(checks, say)
        psql = f"{STATE}/psql" if servers.postgres else ""
        print(banner(world, settings.operator_password, servers.places(), psql=psql, env=f"{STATE}/env"), flush=True)

    lost: list[str] = []
    supervision.run(world, state, environment, (announce, lambda: _stop_when_lost(servers, lost)))
    if lost:
        raise UpFailed(f"{lost[0]} ended by itself, so all were stopped: its log is in {servers.homes()[lost[0]]}")


def _state(folder: Path) -> Path:
    state = folder / STATE
    try:
        state.mkdir(exist_ok=True)
        if state.stat().st_uid != os.geteuid():
            raise UpFailed(f"{state} belongs to another user: run this as that user, or move it away")
        state.chmod(0o711)  # as root, PostgreSQL's own account passes through
    except OSError as error:
        raise UpFailed(f"{state} cannot be used ({error.strerror}): run this in a folder of your own") from None
    return state


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One run per folder. The lock goes with the process, however it ends. Raises UpFailed."""
    with open(path, "a+", encoding="ascii", opener=private) as file:
        try:
            # lockf, not flock: honcho's forks do not inherit it
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UpFailed(f"it runs here already, as process {_holder(file)}: stop that one first") from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def _holder(file: TextIO) -> str:
    file.seek(0)
    return file.read().strip() or "unknown"


def _checks(world: World, swept: Check) -> dict[str, Check]:
    checks = {
        "web": answers(f"http://127.0.0.1:{world.ports.web}/readyz"),
        "flower": answers(f"http://127.0.0.1:{world.ports.flower}/healthcheck"),
        "the first sweep of beat and worker": swept,
    }
    if world.simulated:
        checks["simulator"] = answers(f"http://127.0.0.1:{world.ports.simulator}/_sim/health")
    return checks


def _stop_when_lost(servers: Servers, lost: list[str]) -> None:
    """Nothing works without them; honcho takes the signal."""
    lost.append(servers.wait_until_one_is_lost())
    os.kill(os.getpid(), signal.SIGTERM)
