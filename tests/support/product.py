"""The product's processes, started as in production."""

from __future__ import annotations

import os
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from sandbox.child_processes import LOG_TAIL_CHARACTERS, START_SECONDS, ChildProcess, installed_command
from sandbox.ports import find_free_port
from shared.settings import Settings
from tests.support import fork_server
from tests.support.environment import web_environment

#: Requests to loopback must not go through a proxy of the machine.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))

ReadyCheck = Callable[[ChildProcess], bool]


class ForkedChildProcess(ChildProcess):
    """A ChildProcess that the fork server starts."""

    def _start(  # type: ignore[override]
        self, argv: Sequence[str], environment: Mapping[str, str], output: IO[bytes], cwd: Path, user: str | None
    ) -> fork_server.ForkedProcess:
        with Path(os.devnull).open("rb") as nothing:
            return fork_server.fork(argv, environment, nothing, output)


class Product:
    """Starts the product's processes, any number of each; `stop` ends them all."""

    def __init__(self, environment: Mapping[str, str], folder: Path, web_options: Sequence[str] = ()) -> None:
        """`web_options`: of gunicorn, for every web process."""
        self.environment = dict(environment)
        self._web_options = web_options
        self.folder = folder
        self.running: list[ChildProcess] = []
        self._started = 0

    def web(self, *options: str, wait: bool = True, **changes: str) -> ChildProcess:
        """The first one listens on the port of the redirect URI, the others on free ports."""
        is_first = not any(process.name.startswith("web") for process in self.running)
        port = self._read_port() if is_first else find_free_port()
        argv = ["gunicorn", "web.wsgi:app", "--bind", f"127.0.0.1:{port}", "--worker-class", "gthread"]
        argv += ["--threads", "8", "--workers", "2", "--no-control-socket", *self._web_options, *options]
        is_ready = url_responds("/healthz") if wait else None
        url = f"http://127.0.0.1:{port}"
        return self.start("web", argv, is_ready, url=url, **web_environment(self.environment | changes))

    def _read_port(self) -> int | None:
        """Of the redirect URI of the first app, wherever the settings describe it."""
        hubspot = {name: value for name, value in self.environment.items() if name.startswith("HUBSPOT_")}
        app, *_ = Settings.from_env(hubspot, needs=()).apps.values()
        return urlsplit(app.redirect_uri).port

    def worker(self, *options: str, wait: bool = True, **changes: str) -> ChildProcess:
        """`-c 2` unless `options` say otherwise."""
        concurrency = () if "-c" in options else ("-c", "2")
        node = f"worker{len(self.running)}@%h"
        argv = ["celery", "-A", "worker.app", "worker", "-n", node, "-l", "info", *concurrency, *options]
        return self.start("worker", argv, has_printed(" ready.") if wait else None, **changes)

    def beat(self, *, wait: bool = True, **changes: str) -> ChildProcess:
        argv = ["celery", "-A", "worker.app", "beat", "--pidfile="]
        return self.start("beat", argv, has_printed("is starting") if wait else None, **changes)

    def flower(self, *, wait: bool = True, **changes: str) -> ChildProcess:
        port = find_free_port()
        argv = ["celery", "-A", "worker.app", "flower", "--address=127.0.0.1", f"--port={port}"]
        is_ready = url_responds("/healthcheck") if wait else None
        return self.start("flower", argv, is_ready, url=f"http://127.0.0.1:{port}", **changes)

    def start(
        self, name: str, argv: Sequence[str], is_ready: ReadyCheck | None = None, url: str = "", **changes: str
    ) -> ChildProcess:
        """`argv` begins with a command of this environment's bin folder. Raises ProcessFailed."""
        name = f"{name}-{self._started}"  # a file for its output that no earlier process has written to
        self._started += 1
        command = [installed_command(argv[0]), *argv[1:]]
        environment = {**self.environment, **changes}
        process_class = ForkedChildProcess if fork_server.can_fork(command, environment) else ChildProcess
        process = process_class(name, command, environment, self.folder / f"{name}.log", url=url)
        self.running.append(process)
        return process.wait_until(is_ready) if is_ready else process

    def tokenkeeper(self, *arguments: str, stdin: str = "", **changes: str) -> subprocess.CompletedProcess[str]:
        """Runs the command to its end, whatever its exit status."""
        return self._run("tokenkeeper", *arguments, stdin=stdin, **changes)

    def celery(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs Celery's own command to its end, whatever its exit status."""
        return self._run("celery", "-A", "worker.app", *arguments)

    def _run(self, command: str, *arguments: str, stdin: str = "", **changes: str) -> subprocess.CompletedProcess[str]:
        argv = [installed_command(command), *arguments]
        result = fork_server.run(argv, {**self.environment, **changes}, stdin.encode(), START_SECONDS)
        return subprocess.CompletedProcess(argv, result.returncode, result.stdout.decode(), result.stderr.decode())

    def stop(self) -> None:
        """All get SIGTERM first, so that the wait is that of the slowest."""
        for process in self.running:
            if process.status is None:
                process.send_signal(signal.SIGTERM)
        for process in self.running:
            process.stop()

    def output_tails(self) -> list[tuple[str, str]]:
        """A heading and the end of the output of each process."""
        return [(f"output of {process.name}", process.output()[-LOG_TAIL_CHARACTERS:]) for process in self.running]


def has_printed(text: str) -> ReadyCheck:
    return lambda process: process.has_printed(text)


def url_responds(path: str) -> ReadyCheck:
    """Whether a GET of `path` at the process's URL has a status below 300."""

    def check(process: ChildProcess) -> bool:
        try:
            with _DIRECT.open(f"{process.url}{path}", timeout=2) as reply:
                return bool(reply.status < 300)
        except (urllib.error.URLError, OSError):
            return False

    return check
