"""Runs the product's processes side by side under honcho, each line of output prefixed by its process's name."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import honcho.manager
from honcho.manager import Manager

from sandbox.child_processes import ROOT, installed_command
from sandbox.respawn import EX_CONFIG, STOP_SECONDS
from sandbox.run_config import SIMULATED_TOKEN_SECONDS, RunConfig
from worker.celery_command import make_arguments

#: Longer than a respawner waits, so that the respawner kills a process that does not stop, and then reports it.
honcho.manager.KILL_WAIT = STOP_SECONDS + 5
#: For processes with nothing to finish. Flower waits for minutes for a broker that is gone.
SHORT_STOP_SECONDS = 8.0
STOP_STATUSES = (128 + signal.SIGINT, 128 + signal.SIGTERM)
_WEB_AND_WORKER_SECRETS = {"DATABASE_URL", "REDIS_URL", "HUBSPOT_CLIENT_SECRET", "HUBSPOT_PROXY", "TOKEN_KEYS"}
#: The secret settings that each process works with.
PROCESS_SECRETS = {
    "simulator": {"HUBSPOT_CLIENT_SECRET"},
    "web": _WEB_AND_WORKER_SECRETS | {"SECRET_KEY", "OPERATOR_PASSWORD", "METRICS_PASSWORD", "CONNECT_LINK_KEYS"},
    "worker": _WEB_AND_WORKER_SECRETS
    | {"ALERT_WEBHOOK_URL", "ALERT_WEBHOOK_SECRET", "EVENTS_WEBHOOK_URL", "EVENTS_WEBHOOK_SECRET"},
    "beat": {"REDIS_URL"},
    "flower": {"REDIS_URL", "OPERATOR_PASSWORD"},
}
#: Secrets that only `tokenkeeper roles` reads.
COMMAND_SECRETS = {"WEB_DATABASE_URL", "WORKER_DATABASE_URL"}
WEB_OPTIONS = ("--worker-class", "gthread", "--threads", "8", "--workers", "2", "--no-control-socket")

Watcher = Callable[[], None]


class ProcessEnded(Exception):
    """A process refused to start because of its configuration, or the respawner of one ended by itself."""


class Supervisor(Manager):  # type: ignore[misc]  # honcho has no types
    """Starts `watchers` in threads after the processes are forked: a fork copies locks, but not the threads."""

    def __init__(self, watchers: Sequence[Watcher]) -> None:
        super().__init__()
        self._watchers = watchers

    def _start(self) -> None:
        super()._start()
        for watcher in self._watchers:
            threading.Thread(target=watcher, daemon=True).start()


def run_processes(config: RunConfig, state: Path, environment: Mapping[str, str], watchers: Sequence[Watcher]) -> None:
    """Returns after Ctrl-C or SIGTERM, when all processes have ended. Raises ProcessEnded."""
    supervisor = Supervisor(watchers)
    all_secrets = COMMAND_SECRETS.union(*PROCESS_SECRETS.values())
    for name, command in make_commands(config, state).items():
        withheld = all_secrets - PROCESS_SECRETS[name]
        stop_seconds = STOP_SECONDS if name == "worker" else SHORT_STOP_SECONDS
        supervisor.add_process(
            name,
            _make_respawn_command(command, stop_seconds),
            env={key: value for key, value in environment.items() if key.removesuffix("_FILE") not in withheld},
        )
    supervisor.loop()
    if explanation := explain_end(supervisor.returncode):
        raise ProcessEnded(explanation)


def explain_end(status: int) -> str | None:
    """`status`: of the respawner that ended first, or honcho's after a signal. None where somebody stopped it."""
    if status in STOP_STATUSES:
        return None
    if status == EX_CONFIG:
        return "a process refused to start, so all were stopped: its own line above says why"
    return (
        f"the respawner of a process ended with status {status}, as if it was killed, so all were stopped: "
        "run `tokenkeeper up` again, which finds its data"
    )


def make_commands(config: RunConfig, state: Path) -> dict[str, Sequence[str]]:
    """The command of each process by its name."""
    # Worker and beat begin as what they would replace themselves by: that saves each a start of Python and of Celery.
    celery = (sys.executable, *make_arguments(installed_command("celery"), "--quiet", "-A", "worker.app"))
    flower = (sys.executable, "-m", "celery", "--quiet", "-A", "worker.app", "flower")
    # By its path: this may run in another folder than that of gunicorn.conf.py.
    gunicorn = (sys.executable, "-m", "gunicorn", "--config", str(ROOT / "gunicorn.conf.py"))
    ports = config.ports
    simulator = ("-m", "sandbox.simulator", "--port", str(ports.simulator), "--lifetime", str(SIMULATED_TOKEN_SECONDS))
    commands: dict[str, Sequence[str]] = {
        "simulator": (sys.executable, *simulator, "--state", str(state / "simulator.sqlite3")),
        "web": (*gunicorn, "web.wsgi:app", "--bind", f"127.0.0.1:{ports.web}", *WEB_OPTIONS),
        "worker": (*celery, "worker", "-c", "2", "-l", "info"),
        "beat": (*celery, "beat", "--schedule", str(state / "beat-schedule"), "--pidfile="),
        "flower": (*flower, "--address=127.0.0.1", f"--port={ports.flower}", "--logging=error"),
    }
    if not config.is_simulated:
        del commands["simulator"]
    return commands


def _make_respawn_command(command: Sequence[str], stop_seconds: float) -> str:
    """For the shell that honcho uses. `exec`: honcho's signals must reach the respawner, not a shell."""
    options = ("--parent", str(os.getpid()), f"--stop-seconds={stop_seconds:g}", "--")
    return f"exec {shlex.join([sys.executable, '-m', 'sandbox.respawn', *options, *command])}"
