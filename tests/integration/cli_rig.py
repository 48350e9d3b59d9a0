"""Runs the command as an operator does: as a process, with settings from the environment."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

TOKENKEEPER = Path(sys.executable).parent / "tokenkeeper"
SECONDS = 60


@dataclass(frozen=True)
class Ran:
    status: int
    out: str
    err: str


class Command:
    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = dict(environment)

    def __call__(self, *arguments: str | Path, stdin: str | bytes = b"", **changes: str) -> Ran:
        given = stdin.encode() if isinstance(stdin, str) else stdin
        ran = subprocess.run(
            [TOKENKEEPER, *map(str, arguments)],
            input=given,
            capture_output=True,
            env={**self.environment, **changes},
            timeout=SECONDS,
            check=False,
        )
        return Ran(ran.returncode, ran.stdout.decode(), ran.stderr.decode())
