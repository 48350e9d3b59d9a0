"""Real processes for tests: started as in production, waited for, killed, and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from sandbox.child_processes import die_with_parent, signal_group, stop_process
from sandbox.ports import find_free_port

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 60.0
STOP_SECONDS = 20.0
POLL_SECONDS = 0.05
LOG_TAIL = 6000
#: What every subprocess may know of the machine; settings come from the test alone.
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR")

#: A proxy of the machine's has no business on loopback.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))

Ready = Callable[["Running"], bool]


class NotReady(Exception):
    """A process ended, or did not become ready in time; the message ends with what it said."""


class Running:
    """A process of the product; its output goes to a file."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        *,
        url: str = "",
        cwd: Path = ROOT,
    ) -> None:
        self.name = name
        self.log = log
        self.url = url  #: where it listens; empty where it does not
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                list(argv),
                cwd=cwd,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=die_with_parent(signal.SIGTERM),  # noqa: PLW1509  one call into libc
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Exit status; negative for a signal; None while it runs."""
        return self._process.poll()

    def output(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def says(self, text: str) -> bool:
        return text in self.output()

    def wait_until(self, ready: Ready, seconds: float = START_SECONDS) -> Running:
        """Raises NotReady where it ends before, or takes longer."""
        deadline = time.monotonic() + seconds
        while not ready(self):
            if self.status is not None:
                raise NotReady(f"{self.name} ended with status {self.status}:\n{self.output()[-LOG_TAIL:]}")
            if time.monotonic() > deadline:
                raise NotReady(f"{self.name} is not ready after {seconds:g} s:\n{self.output()[-LOG_TAIL:]}")
            time.sleep(POLL_SECONDS)
        return self

    def wait(self, seconds: float = START_SECONDS) -> int:
        """Its exit status, once it ends by itself. Raises subprocess.TimeoutExpired."""
        return self._process.wait(seconds)

    def send(self, signum: int) -> None:
        """To the process alone, not to its children."""
        self._process.send_signal(signum)

    def kill(self, signum: int = signal.SIGKILL) -> None:
        """To the process and all its children, as when a machine dies."""
        signal_group(self.pid, signum)
        if signum == signal.SIGKILL:
            self._process.wait()

    def stop(self, seconds: float = STOP_SECONDS) -> int:
        """SIGTERM, and SIGKILL after `seconds`; children that were left behind go too. Its exit status."""
        if self.status is None:
            signal_group(self.pid, signal.SIGCONT)
        status = stop_process(self._process, signal.SIGTERM, seconds)
        signal_group(self.pid, signal.SIGKILL)
        return status


class Product:
    """Starts the product's processes, any number of each; `stop` leaves none behind."""

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self.environment = dict(environment)
        self.folder = folder
        self.running: list[Running] = []

    def web(self, *, wait: bool = True, **changes: str) -> Running:
        """The first one listens where HUBSPOT_REDIRECT_URI leads, the others elsewhere."""
        first = not any(running.name.startswith("web") for running in self.running)
        port = urlsplit(self.environment["HUBSPOT_REDIRECT_URI"]).port if first else find_free_port()
        argv = ["gunicorn", "web.wsgi:app", "--bind", f"127.0.0.1:{port}", "--worker-class", "gthread"]
        argv += ["--threads", "8", "--workers", "2", "--no-control-socket"]
        ready = answers("/healthz") if wait else None
        return self.start("web", argv, ready, url=f"http://127.0.0.1:{port}", **as_web(self.environment | changes))

    def worker(self, *options: str, wait: bool = True, **changes: str) -> Running:
        """`-c 2` unless `options` say otherwise."""
        concurrency = () if "-c" in options else ("-c", "2")
        node = f"worker{len(self.running)}@%h"
        argv = ["celery", "-A", "worker.app", "worker", "-n", node, "-l", "info", *concurrency, *options]
        return self.start("worker", argv, says(" ready.") if wait else None, **changes)

    def beat(self, *, wait: bool = True, **changes: str) -> Running:
        argv = ["celery", "-A", "worker.app", "beat", "--pidfile="]
        return self.start("beat", argv, says("is starting") if wait else None, **changes)

    def flower(self, *, wait: bool = True, **changes: str) -> Running:
        port = find_free_port()
        argv = ["celery", "-A", "worker.app", "flower", "--address=127.0.0.1", f"--port={port}"]
        ready = answers("/healthcheck") if wait else None
        return self.start("flower", argv, ready, url=f"http://127.0.0.1:{port}", **changes)

    def start(
        self, name: str, argv: Sequence[str], ready: Ready | None = None, url: str = "", **changes: str
    ) -> Running:
        """`argv` begins with a command of this environment's bin folder. Raises NotReady."""
        name = f"{name}-{len(self.running)}"
        command = [str(Path(sys.executable).parent / argv[0]), *argv[1:]]
        running = Running(name, command, {**self.environment, **changes}, self.folder / f"{name}.log", url=url)
        self.running.append(running)
        return running.wait_until(ready) if ready else running

    def tokenkeeper(self, *arguments: str, stdin: str = "", **changes: str) -> subprocess.CompletedProcess[str]:
        """Runs the command to its end, whatever its exit status."""
        return self._run("tokenkeeper", *arguments, stdin=stdin, **changes)

    def celery(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The same of Celery's own command."""
        return self._run("celery", "-A", "worker.app", *arguments)

    def _run(self, command: str, *arguments: str, stdin: str = "", **changes: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(Path(sys.executable).parent / command), *arguments],
            cwd=ROOT,
            env={**self.environment, **changes},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            check=False,
        )

    def stop(self) -> None:
        """All get their SIGTERM at once: the wait is that of the slowest."""
        for running in self.running:
            if running.status is None:
                running.send(signal.SIGTERM)
        for running in self.running:
            running.stop()

    def logs(self) -> list[tuple[str, str]]:
        return [(f"output of {running.name}", running.output()[-LOG_TAIL:]) for running in self.running]


def as_web(environment: Mapping[str, str]) -> dict[str, str]:
    """As web sees it: with its own login to the database, where it has one."""
    return {**environment, "DATABASE_URL": environment.get("WEB_DATABASE_URL") or environment.get("DATABASE_URL", "")}


def inherited() -> dict[str, str]:
    return {name: os.environ[name] for name in INHERITED if name in os.environ} | {"PYTHONUNBUFFERED": "1"}


def says(text: str) -> Ready:
    return lambda running: running.says(text)


def answers(path: str) -> Ready:
    """Ready once `path` of its URL answers well."""

    def ready(running: Running) -> bool:
        try:
            with _DIRECT.open(f"{running.url}{path}", timeout=2) as reply:
                return bool(reply.status < 300)
        except (urllib.error.URLError, OSError):
            return False

    return ready
