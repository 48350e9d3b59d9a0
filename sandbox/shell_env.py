"""Files by which people reach a running product from another terminal; a secret shows neither in `ps` nor to others."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from sandbox.embedded import EmbeddedPostgres
from sandbox.embedded.postgres import USER
from sandbox.embedded.server import private


def write_shell_settings(path: Path, settings: Mapping[str, str]) -> None:
    """For `. FILE`: the settings, and our commands on the PATH."""
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in sorted(settings.items()) if value]
    lines.append(f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"\n')
    _replace(path, "".join(lines), private)


def write_psql(path: Path, server: EmbeddedPostgres, database: str) -> None:
    """A command that asks the embedded database, for machines that have no psql."""
    script = f"""#!/bin/sh
# psql on tokenkeeper's embedded database
PGPASSWORD=$(cat {shlex.quote(str(server.home / "password"))}) || exit
export PGPASSWORD
exec {shlex.quote(str(server.binaries / "psql"))} -h 127.0.0.1 -p {server.port} -U {USER} -d {database} "$@"
"""
    _replace(path, script, lambda name, flags: os.open(name, flags, 0o700))


def _replace(path: Path, text: str, opener: Callable[[str, int], int]) -> None:
    path.unlink(missing_ok=True)
    with open(path, "x", encoding="utf-8", opener=opener) as file:
        file.write(text)
