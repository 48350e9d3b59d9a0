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

from sandbox.respawn import PATIENCE
from sandbox.world import LIFETIME, World

#: Longer than a respawner waits, so that it is the respawner who ends a process that does not stop.
honcho.manager.KILL_WAIT = PATIENCE + 5
#: Seconds for those that have nothing to finish. Flower waits for minutes for a broker that is gone.
BRIEF = 8.0
TOLD_TO_GO = (128 + signal.SIGINT, 128 + signal.SIGTERM)
_BOTH = {"DATABASE_URL", "REDIS_URL", "HUBSPOT_CLIENT_SECRET", "TOKEN_KEYS"}
#: The secrets among the settings of each process.
NEEDS = {
    "simulator": {"HUBSPOT_CLIENT_SECRET"},
    "web": _BOTH | {"SECRET_KEY", "OPERATOR_PASSWORD"},
    "worker": _BOTH | {"ALERT_WEBHOOK_URL", "ALERT_WEBHOOK_SECRET"},
    "beat": {"REDIS_URL"},
    "flower": {"REDIS_URL", "OPERATOR_PASSWORD"},
}
#: The command's own: what logins it makes (`tokenkeeper roles`).
NOBODYS = {"WEB_DATABASE_URL", "WORKER_DATABASE_URL"}
WEB_OPTIONS = ("--worker-class", "gthread", "--threads", "8", "--workers", "2", "--no-control-socket")


Watcher = Callable[[], None]


class ProcessRefused(Exception):
    """One of the processes cannot work as it is set up."""


class Supervisor(Manager):  # type: ignore[misc]  # honcho has no types
    """Starts `watchers` in threads once the processes are forked: a fork copies no thread, only its locks."""

    def __init__(self, watchers: Sequence[Watcher]) -> None:
        super().__init__()
        self._watchers = watchers

    def _start(self) -> None:
        super()._start()
        for watcher in self._watchers:
            threading.Thread(target=watcher, daemon=True).start()


def run(world: World, state: Path, environment: Mapping[str, str], watchers: Sequence[Watcher]) -> None:
    """Until Ctrl-C or SIGTERM. Raises ProcessRefused."""
    supervisor = Supervisor(watchers)
    for name, command in commands(world, state).items():
        patience = PATIENCE if name == "worker" else BRIEF
        supervisor.add_process(name, _respawned(command, patience), env=_needed(name, environment))
    supervisor.loop()
    if supervisor.returncode not in TOLD_TO_GO:
        raise ProcessRefused("a process refused to start, so all were stopped: its own line above says why")


def _needed(name: str, environment: Mapping[str, str]) -> dict[str, str]:
    """What shows in a process's environment is what it works with, and no other's secret."""
    kept_back = NOBODYS.union(*NEEDS.values()) - NEEDS[name]
    return {key: value for key, value in environment.items() if key.removesuffix("_FILE") not in kept_back}


def commands(world: World, state: Path) -> dict[str, Sequence[str]]:
    celery = (sys.executable, "-m", "celery", "--quiet", "-A", "worker.app")
    ports = world.ports
    simulator = ("-m", "sandbox.simulator", "--port", str(ports.simulator), "--lifetime", str(LIFETIME))
    processes: dict[str, Sequence[str]] = {
        "simulator": (sys.executable, *simulator, "--state", str(state / "simulator.sqlite3")),
        "web": (sys.executable, "-m", "gunicorn", "web.wsgi:app", "--bind", f"127.0.0.1:{ports.web}", *WEB_OPTIONS),
        "worker": (*celery, "worker", "-c", "2", "-l", "info"),
        "beat": (*celery, "beat", "--schedule", str(state / "beat-schedule"), "--pidfile="),
        "flower": (*celery, "flower", "--address=127.0.0.1", f"--port={ports.flower}", "--logging=error"),
    }
    if not world.simulated:
        del processes["simulator"]
    return processes


def _respawned(command: Sequence[str], patience: float) -> str:
    """For honcho's shell. `exec`: no shell stays between honcho's signals and us."""
    respawn = (sys.executable, "-m", "sandbox.respawn", "--while", str(os.getpid()), f"--patience={patience:g}", "--")
    return f"exec {shlex.join([*respawn, *command])}"
