"""Runs the command as an operator does: as a process, with settings from the environment."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support import fork_server

TOKENKEEPER = Path(sys.executable).parent / "tokenkeeper"
SECONDS = 60
#: What a terminal obeys and does not show.
ORDERS = re.compile(r"\x1b(\[[0-9;?]*[a-zA-Z]|\][^\x07]*\x07)")


@dataclass(frozen=True)
class Ran:
    status: int
    out: str
    err: str

    @property
    def shown(self) -> list[str]:
        """The lines as a terminal shows them: colours and other orders of its own left out."""
        return ORDERS.sub("", self.out).replace("\r", "").split("\n")


class Command:
    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = dict(environment)

    def __call__(self, *arguments: str | Path, stdin: str | bytes = b"", **changes: str) -> Ran:
        given = stdin.encode() if isinstance(stdin, str) else stdin
        argv = [str(TOKENKEEPER), *map(str, arguments)]
        result = fork_server.run(argv, {**self.environment, **changes}, given, SECONDS)
        return Ran(result.returncode, result.stdout.decode(), result.stderr.decode())

    def on_a_terminal(self, *arguments: str, ctrl_c_after: str = "", **changes: str) -> Ran:
        """All three streams are a terminal of 160 columns, unless COLUMNS says otherwise; `err` is in `out`."""
        ours, theirs = pty.openpty()
        environment = {**self.environment, "TERM": "xterm-256color", "COLUMNS": "160", "LINES": "40", **changes}
        running = subprocess.Popen(
            [TOKENKEEPER, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
        )
        os.close(theirs)
        said = b""
        limit = threading.Timer(SECONDS, running.kill)
        limit.start()
        with running:
            while chunk := _read(ours):
                said += chunk
                if ctrl_c_after and ctrl_c_after.encode() in said:
                    ctrl_c_after = ""
                    running.send_signal(signal.SIGINT)
            status = running.wait(SECONDS)
        limit.cancel()
        os.close(ours)
        return Ran(status, said.decode(), "")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:  # how Linux says that the other end is closed
        return b""
