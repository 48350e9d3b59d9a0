"""Files for another terminal: the settings of the running product, and psql on its database.

Only the owner can read them; no secret is passed on a command line, where `ps` would show it.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from sandbox.embedded import EmbeddedPostgres
from sandbox.embedded.postgres import USER
from sandbox.embedded.server import open_private


def write_shell_settings(path: Path, settings: Mapping[str, str]) -> None:
    """A file for the shell's `. FILE`: exports the settings and puts the project's commands on the PATH."""
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in sorted(settings.items()) if value]
    lines.append(f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"\n')
    _write_new(path, "".join(lines), open_private)


def write_psql_script(path: Path, server: EmbeddedPostgres, database: str) -> None:
    """A command that runs the embedded server's psql, for machines that have none."""
    script = f"""#!/bin/sh
# psql on tokenkeeper's embedded database
# Variables of another server, such as PGSSLMODE, would count here too.
for name in $(env | sed -n 's/^\\(PG[A-Z]*\\)=.*/\\1/p'); do unset "$name"; done
PGPASSWORD=$(cat {shlex.quote(str(server.folder / "password"))}) || exit
export PGPASSWORD
exec {shlex.quote(str(server.binaries / "psql"))} -h 127.0.0.1 -p {server.port} -U {USER} -d {database} "$@"
"""
    _write_new(path, script, lambda name, flags: os.open(name, flags, 0o700))


def _write_new(path: Path, text: str, opener: Callable[[str, int], int]) -> None:
    """Replaces the file: an existing one could have other permissions."""
    path.unlink(missing_ok=True)
    with open(path, "x", encoding="utf-8", opener=opener) as file:
        file.write(text)
