"""Runs the `tokenkeeper` command: in this process, where a test needs its result alone, or as a process of its own."""

from __future__ import annotations

import os
import pty
import re
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner

from cli.main import main
from tests.support import fork_server
from tests.support.polling import list_readable

TOKENKEEPER = Path(sys.executable).parent / "tokenkeeper"
TIMEOUT_SECONDS = 60
CTRL_C_REPEAT_SECONDS = 3.0
#: Control sequences, which a terminal does not show.
CONTROL_SEQUENCE = re.compile(r"\x1b(\[[0-9;?]*[a-zA-Z]|\][^\x07]*\x07)")


@dataclass(frozen=True)
class CommandResult:
    status: int
    out: str
    err: str

    @property
    def screen_lines(self) -> list[str]:
        """What a terminal shows, without colours."""
        return CONTROL_SEQUENCE.sub("", self.out).replace("\r", "").split("\n")


class Command:
    """`environment` holds its settings. `changes` are further ones, for one run."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = dict(environment)

    def __call__(self, *arguments: str | Path, stdin: str | bytes = b"", **changes: str) -> CommandResult:
        """In this process, with its own settings and streams. Not for `disconnect`, which configures the log."""
        status = 0
        with CliRunner().isolation(input=stdin, env={**self.environment, **changes}) as (out, err, _):
            try:
                main([str(argument) for argument in arguments])
            except SystemExit as error:
                status = int(error.code or 0)
        return CommandResult(status, out.getvalue().decode(), err.getvalue().decode())

    def run_process(self, *arguments: str | Path, stdin: str | bytes = b"", **changes: str) -> CommandResult:
        """Forked from a process that has imported the libraries."""
        argv = [str(TOKENKEEPER), *map(str, arguments)]
        stdin_bytes = stdin.encode() if isinstance(stdin, str) else stdin
        result = fork_server.run(argv, {**self.environment, **changes}, stdin_bytes, TIMEOUT_SECONDS)
        return CommandResult(result.returncode, result.stdout.decode(), result.stderr.decode())

    def run_on_terminal(
        self,
        *arguments: str,
        answer: str = "",
        ctrl_c_after: str = "",
        on_text: tuple[str, Callable[[], None]] | None = None,
        **changes: str,
    ) -> CommandResult:
        """A process; all three streams are a terminal of 160 columns, unless COLUMNS is given; `err` is in `out`.

        Forked, as by `run_process`. `answer` is typed at once. `on_text`: what to call once when the text has appeared.
        """
        controller, terminal = pty.openpty()
        argv = [str(TOKENKEEPER), *arguments]
        environment = {**self.environment, "TERM": "xterm-256color", "COLUMNS": "160", "LINES": "40", **changes}
        with os.fdopen(terminal, "r+b", buffering=0) as stream:
            process = fork_server.fork(argv, environment, stream, stream)
        os.write(controller, answer.encode())
        output, is_interrupted = b"", False
        timer = threading.Timer(TIMEOUT_SECONDS, process.kill)
        timer.start()
        while True:
            has_output = bool(list_readable([controller], CTRL_C_REPEAT_SECONDS))
            if has_output and not (chunk := _read(controller)):
                break
            output += chunk if has_output else b""
            if on_text and on_text[0].encode() in output:
                on_text[1]()
                on_text = None
            # Again where nothing came of it: Python loses a signal that arrives just before input() begins to read.
            if ctrl_c_after and ctrl_c_after.encode() in output and not (has_output and is_interrupted):
                is_interrupted = True
                process.send_signal(signal.SIGINT)
        status = process.wait(TIMEOUT_SECONDS)
        timer.cancel()
        os.close(controller)
        return CommandResult(status, output.decode(), "")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:  # Linux reports a closed terminal like this
        return b""
