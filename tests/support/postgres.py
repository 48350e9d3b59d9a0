"""New PostgreSQL servers for tests, each with a copy of the same data folder: initdb takes four times as long."""

from __future__ import annotations

import atexit
import functools
import subprocess
from contextlib import ExitStack
from pathlib import Path

from sandbox.embedded import EmbeddedPostgres
from tests.support.folders import server_folder


def make_postgres(folder: Path, *, durable: bool) -> EmbeddedPostgres:
    """Not started. `folder` is a `server_folder` that has no PostgreSQL yet."""
    if not (folder / "postgres").exists():
        # Of root, and so by an external command: Python copies no owners.
        subprocess.run(["cp", "-a", _initialised_folder(), folder / "postgres"], check=True)
    return EmbeddedPostgres(folder, durable=durable)


@functools.cache
def _initialised_folder() -> Path:
    """Of a server that was started once and stopped; kept until this process ends."""
    stack = ExitStack()
    atexit.register(stack.close)
    server = EmbeddedPostgres(stack.enter_context(server_folder("initialised")), durable=False)
    server.start()
    server.stop()
    for name in ("port", "postgres.log"):
        (server.folder / name).unlink()
    return server.folder
