"""Where secrets could have come to rest: what PostgreSQL and Valkey keep in files, and what a dump holds."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import redis

from tests.security.audit import Audit

#: A table's lines in a dump.
COPIED = re.compile(rb"^COPY ([\w.]+) .*?^\\\.$", re.MULTILINE | re.DOTALL)
#: Where access tokens live, and where what becomes of them is written.
HOME = "PostgreSQL table tokenkeeper.connections"
JOURNAL = "PostgreSQL write-ahead log"
HEAP = """
SELECT pg_relation_filepath(oid) FROM pg_class WHERE oid = 'tokenkeeper.connections'::regclass
 UNION SELECT pg_relation_filepath(reltoastrelid) FROM pg_class
        WHERE oid = 'tokenkeeper.connections'::regclass AND reltoastrelid <> 0
"""


def dump_tables(audit: Audit) -> Iterator[tuple[str, bytes]]:
    """By table, and the rest."""
    binary = audit.servers.postgres.binaries / "pg_dump"
    command = [str(binary), "--no-owner", audit.deployment.database_url]
    dump = subprocess.run(command, check=True, capture_output=True, env={"PATH": os.defpath}).stdout
    for table in COPIED.finditer(dump):
        yield f"PostgreSQL table {table[1].decode()}", table[0]
    yield "pg_dump", COPIED.sub(b"", dump)


def postgres_files(audit: Audit) -> Iterator[tuple[str, bytes]]:
    """All that is in its folder. After a checkpoint, what a table holds is in its file, and not in the log alone."""
    audit.deployment.sql.rows("CHECKPOINT")
    heap = {path for (path,) in audit.deployment.sql.rows(HEAP)}
    data = audit.servers.postgres.folder / "data"
    for path in sorted(data.rglob("*")):
        if path.is_file():
            name = str(path.relative_to(data))
            place = HOME if re.sub(r"\.\d+$", "", name) in heap else f"PostgreSQL file {name}"
            yield JOURNAL if name.startswith("pg_wal/") else place, path.read_bytes()
    yield "PostgreSQL log", (audit.servers.postgres.folder / "postgres.log").read_bytes()


def valkey_files(audit: Audit) -> Iterator[tuple[str, bytes]]:
    with redis.Redis.from_url(audit.servers.valkey.url()) as broker:
        broker.save()
    home = audit.servers.valkey.folder
    for path in sorted(home.rglob("*")):
        if path.is_file() and path != home / "password":
            yield f"Valkey file {path.name}", path.read_bytes()


def logs(audit: Audit) -> Iterator[tuple[str, bytes]]:
    for running in audit.deployment.product.running:
        yield f"output of {running.name}", running.log.read_bytes()


def posts(audit: Audit) -> Iterator[tuple[str, bytes]]:
    """What the webhook was sent; it is addressed by its URL, which is therefore left out."""
    for headers, body in audit.receiver.posts():
        told = {name: value for name, value in headers.items() if name}
        yield "alert", repr(told).encode() + body


def root_files(root: Path) -> Iterator[tuple[str, bytes]]:
    """What beat and others leave where they were started."""
    for path in root.iterdir():
        if path.is_file():
            yield f"file {path.name}", path.read_bytes()
