"""A process that has imported libraries and product already and forks a new process of the product in milliseconds.

Most of what a worker, a web server or a command costs at its start is the import of Celery, SQLAlchemy and Flask:
0.6 s of CPU time, some 400 times in a run of all tests. The fork server imports them once, and the product's modules
except its entry points: only those read the environment as they are imported (the linter holds that), so each process
reads its settings for itself, as after `exec`. There is one for a run of tests; each process of the run gets a fork of
it, whose children end with that process.
Three differences remain: `/proc` shows the fork server's command line and environment; variables that Python reads as
it starts have no effect (`can_fork` looks for them); objects are not destroyed at the end (`run_and_exit`).
TEST_START=exec starts every process by `exec`.
"""

from __future__ import annotations

import array
import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn

from sandbox.child_processes import die_with_parent
from tests.support.environment import ROOT, inherited_environment
from tests.support.folders import make_once, read_made, read_owner
from tests.support.polling import list_readable

ENTRY_POINTS = {
    "celery": ("celery.__main__", "main"),
    "gunicorn": ("gunicorn.app.wsgiapp", "run"),
    "tokenkeeper": ("cli.main", "main"),
}
LIBRARIES = (
    "alembic.command",
    "celery.__main__",
    "celery.bin.celery",
    "celery.bin.worker",
    "celery.bin.beat",
    "celery.apps.worker",
    "celery.apps.beat",
    "celery.concurrency.prefork",
    "celery.worker.consumer",
    "cryptography.fernet",
    "flask",
    "gunicorn.app.wsgiapp",
    "gunicorn.workers.gthread",
    "jinja2.ext",
    "kombu.transport.redis",
    "logging.config",
    "psycopg2.extras",
    "redis.sentinel",
    "requests",
    "rich.console",
    "rich.table",
    "sqlalchemy.dialects.postgresql.psycopg2",
    "structlog",
    "werkzeug.middleware.proxy_fix",
)
PRODUCT_MODULES = (
    "cli.doctor.command",
    "cli.imports.command",
    "cli.status",
    "web.app",
    "web.server.slow_client_worker",
    "web.startup",
    "worker.worker_process",
    "worker.tasks",
)
#: Variables that Python reads as it starts, and so before a fork.
READ_AT_START = ("PYTHON", "LC_", "LANG")
MESSAGE_BYTES = 1 << 20
#: Names in the fork server's folder.
SOCKET, PID = "socket", "pid"
STOP_SECONDS = 20


def can_fork(argv: Sequence[str], environment: Mapping[str, str], cwd: Path = ROOT) -> bool:
    """Whether a process that is forked behaves as one that is started by `exec`."""

    def read_at_start(variables: Mapping[str, str]) -> dict[str, str]:
        return {name: value for name, value in variables.items() if name.startswith(READ_AT_START)}

    return (
        Path(argv[0]).name in ENTRY_POINTS
        and cwd == ROOT
        and read_at_start({"PYTHONUNBUFFERED": "1", **environment}) == read_at_start(inherited_environment())
        and hasattr(os, "pidfd_open")  # Linux
        and os.environ.get("TEST_START") != "exec"
    )


class ForkedProcess:
    """A child of the fork server, with the part of subprocess.Popen's interface that tests use."""

    def __init__(self, status: int) -> None:
        self._status = os.fdopen(status, "r", encoding="ascii")  #: two lines: the pid, and at the end the exit status
        self.pid = int(self._status.readline())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        return self._read_status(0)

    def wait(self, timeout: float | None = None) -> int:
        status = self._read_status(timeout)
        if status is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        return status

    def send_signal(self, signum: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, signum)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _read_status(self, timeout: float | None) -> int | None:
        if self.returncode is None and list_readable([self._status], timeout):
            self.returncode = int(self._status.readline())
            self._status.close()
        return self.returncode


def fork(argv: Sequence[str], environment: Mapping[str, str], stdin: IO[bytes], stdout: IO[bytes]) -> ForkedProcess:
    """Start `argv` in a session of its own; its errors go where `stdout` goes."""
    return _fork(argv, environment, stdin.fileno(), stdout.fileno(), stdout.fileno())


def run(
    argv: Sequence[str], environment: Mapping[str, str], stdin: bytes, seconds: float
) -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end, forked where that makes no difference. Raises subprocess.TimeoutExpired."""
    if not can_fork(argv, environment):
        return subprocess.run(
            list(argv), cwd=ROOT, env=dict(environment), input=stdin, capture_output=True, timeout=seconds, check=False
        )
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        given.write(stdin)
        given.seek(0)
        process = _fork(argv, environment, given.fileno(), output.fileno(), errors.fileno())
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        output.seek(0)
        errors.seek(0)
        return subprocess.CompletedProcess(list(argv), status, output.read(), errors.read())


def _fork(argv: Sequence[str], environment: Mapping[str, str], *streams: int) -> ForkedProcess:
    reader, writer = os.pipe()
    request = json.dumps({"argv": list(argv), "environment": dict(environment)}).encode()
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [*streams, writer]))
    _connection().sendmsg([request], [rights])
    os.close(writer)
    return ForkedProcess(reader)


@functools.cache
def _connection() -> socket.socket:
    """To this process's own fork of the fork server, which ends with it."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect(str(make_once("fork_server", _start_server) / SOCKET))
    atexit.register(_stop, connection)
    return connection


def _stop(connection: socket.socket) -> None:
    connection.shutdown(socket.SHUT_WR)
    connection.recv(1)  # until the fork ends
    connection.close()


def _start_server(folder: Path) -> None:
    """It runs until `stop_server`, or the end of the process that began the run of tests."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(folder / SOCKET))
        listener.listen()
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.support.fork_server", str(listener.fileno()), str(read_owner())],
            cwd=ROOT,
            env=inherited_environment(),
            stdin=subprocess.DEVNULL,
            pass_fds=[listener.fileno()],
            start_new_session=True,
        )
    (folder / PID).write_text(str(server.pid))
    server.returncode = 0  # it may run for longer than this process: no warning that it still does


def stop_server() -> None:
    """Once no process of the run has a connection any more. Returns when the server has ended."""
    pid = read_made("fork_server", PID)
    with contextlib.suppress(ProcessLookupError):  # it has ended already
        pidfd = os.pidfd_open(int(pid)) if pid else None
        if pidfd is not None:
            signal.pidfd_send_signal(pidfd, signal.SIGTERM)
            list_readable([pidfd], STOP_SECONDS)
            os.close(pidfd)


def accept(listener: socket.socket, owner: int) -> socket.socket | None:
    """Fork for each process that connects: returns its connection in the child, and None when `owner` has ended."""
    before_exec = die_with_parent(signal.SIGTERM)
    assert before_exec
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    poller = select.poll()
    owner_pidfd = os.pidfd_open(owner)
    for file in (listener.fileno(), owner_pidfd):
        poller.register(file, select.POLLIN)
    while owner_pidfd not in {ready for ready, _ in poller.poll()}:
        connection, _ = listener.accept()
        if os.fork() == 0:
            before_exec()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            listener.close()
            os.close(owner_pidfd)
            return connection
        connection.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)
    return None


def serve(connection: socket.socket) -> Sequence[str] | None:
    """Fork for each request. Returns the command line in each child, and None when the connection is closed."""
    children: dict[
        int, tuple[int, int]
    ] = {}  #: pid and status pipe, by the file descriptor that becomes readable at its end
    before_exec = die_with_parent(signal.SIGTERM)
    assert before_exec
    poller = select.poll()
    poller.register(connection.fileno(), select.POLLIN)
    while True:
        for ready, _ in poller.poll():
            if ready in children:
                poller.unregister(ready)
                _report_end(ready, *children.pop(ready))
                continue
            message, control, _, _ = connection.recvmsg(MESSAGE_BYTES, socket.CMSG_SPACE(4 * 4))
            if not message:
                return None
            descriptors = array.array("i")
            descriptors.frombytes(control[0][2])
            if (pid := os.fork()) == 0:
                connection.detach()
                before_exec()
                return _become(json.loads(message), descriptors[:3])
            pidfd = os.pidfd_open(pid)
            children[pidfd] = pid, descriptors[3]
            poller.register(pidfd, select.POLLIN)
            os.write(descriptors[3], f"{pid}\n".encode())
            for descriptor in descriptors[:3]:
                os.close(descriptor)


def _report_end(pidfd: int, pid: int, status: int) -> None:
    _, exit_status = os.waitpid(pid, 0)
    with contextlib.suppress(BrokenPipeError):
        os.write(status, f"{os.waitstatus_to_exitcode(exit_status)}\n".encode())
    os.close(status)
    os.close(pidfd)


def _become(request: dict[str, Any], streams: Sequence[int]) -> Sequence[str]:
    """In a new child: take the command line, environment and streams of the request, and nothing of the server's."""
    os.setsid()
    for target, source in enumerate(streams):
        os.dup2(source, target)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.path.remove(str(ROOT))  # a command of the environment's bin folder has no such entry
    sys.argv = list(request["argv"])
    return sys.argv


def run_and_exit(function: Callable[[], Any]) -> NoReturn:
    """As `sys.exit(function())`, but without the destruction of every object, which copies the pages of all modules.

    That takes two thirds of the CPU time of a short command. An exception takes the ordinary way.
    """
    try:
        status = function()
    except SystemExit as error:
        status = error.code
    if not isinstance(status, int | None):
        sys.exit(status)
    threading._shutdown()
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        sys.exit(status)
    os._exit(status or 0)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.disable()
    for module in (*LIBRARIES, *PRODUCT_MODULES):
        importlib.import_module(module)
    # Otherwise the collector of each child visits all objects, and so copies their pages: two thirds of its CPU time.
    gc.freeze()
    gc.enable()
    accepted = accept(socket.socket(fileno=int(sys.argv[1])), owner=int(sys.argv[2]))
    command = accepted and serve(accepted)
    if command:
        name, function = ENTRY_POINTS[Path(command[0]).name]
        run_and_exit(getattr(importlib.import_module(name), function))
