"""The whole product on one machine, in the foreground: embedded servers, migrations, every process, until Ctrl-C."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from deploy.init_secrets import IncompleteApp
from sandbox.dotenv import DotenvError, read_dotenv
from sandbox.embedded import EmbeddedError
from sandbox.embedded.server import open_private
from sandbox.run_config import InvalidPort, choose_ports, merge_settings, needs_simulator
from sandbox.supervision import ProcessEnded
from shared.settings import Settings

STATE_FOLDER = ".tokenkeeper"


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
        state = _make_state_folder(folder)
        with _lock(state / "lock"):
            _run(state, environ, folder, confirm)
    except KeyboardInterrupt:
        pass
    except (EmbeddedError, InvalidPort, IncompleteApp, ProcessEnded, DotenvError) as error:
        raise UpFailed(str(error)) from None
    say("stopped; the data is kept")


def say(line: str) -> None:
    print(f"tokenkeeper: {line}", flush=True)


def _run(state: Path, environ: Mapping[str, str], folder: Path, confirm: Callable[[str], object]) -> None:
    # 1. Read the settings of the environment and of .env; a malformed one is reported before anything is written.
    dotenv = read_dotenv(folder / ".env")
    given = merge_settings(environ, dotenv)
    is_simulated = needs_simulator(given)
    if is_simulated:
        given = {name: value for name, value in given.items() if name.removesuffix("_FILE") != "HUBSPOT_PROXY"}
    given_settings = Settings.from_env(given, needs=())
    if given_settings.database_url:
        from sandbox.given_database import confirm_database  # noqa: PLC0415  SQLAlchemy, as below

        confirm_database(given_settings.database_url, say, confirm)
    ports = choose_ports(given, say, is_simulated=is_simulated)
    # 2. Run it. A refusal above does not take the time that these imports take.
    from sandbox.run import run_until_stopped  # noqa: PLC0415

    run_until_stopped(state, given, dotenv, ports, say)


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
