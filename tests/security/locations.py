"""The places where secrets could be stored: the files of PostgreSQL and Valkey, a dump, logs and alerts."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import redis

from tests.security.audit import Audit

#: A table's lines in a dump.
TABLE_DUMP = re.compile(rb"^COPY ([\w.]+) .*?^\\\.$", re.MULTILINE | re.DOTALL)
#: The two places where access tokens are allowed.
CONNECTIONS_TABLE = "PostgreSQL table tokenkeeper.connections"
WRITE_AHEAD_LOG = "PostgreSQL write-ahead log"
TABLE_FILES = """
SELECT pg_relation_filepath(oid) FROM pg_class WHERE oid = 'tokenkeeper.connections'::regclass
 UNION SELECT pg_relation_filepath(reltoastrelid) FROM pg_class
        WHERE oid = 'tokenkeeper.connections'::regclass AND reltoastrelid <> 0
"""


def dump_tables(audit: Audit) -> Iterator[tuple[str, bytes]]:
    """The dump of each table, and the rest of the dump."""
    binary = audit.servers.postgres.binaries / "pg_dump"
    command = [str(binary), "--no-owner", audit.deployment.database_url]
    dump = subprocess.run(command, check=True, capture_output=True, env={"PATH": os.defpath}).stdout
    for table in TABLE_DUMP.finditer(dump):
        yield f"PostgreSQL table {table[1].decode()}", table[0]
    yield "pg_dump", TABLE_DUMP.sub(b"", dump)


def postgres_files(audit: Audit) -> Iterator[tuple[str, bytes]]:
    """All files of its folder, after a checkpoint: rows are then in the tables' files and not only in the log."""
    audit.deployment.sql.rows("CHECKPOINT")
    table_files = {path for (path,) in audit.deployment.sql.rows(TABLE_FILES)}
    data = audit.servers.postgres.folder / "data"
    for path, content in read_files(sorted(data.rglob("*"))):
        name = str(path.relative_to(data))
        place = CONNECTIONS_TABLE if re.sub(r"\.\d+$", "", name) in table_files else f"PostgreSQL file {name}"
        yield WRITE_AHEAD_LOG if name.startswith("pg_wal/") else place, content
    yield "PostgreSQL log", (audit.servers.postgres.folder / "postgres.log").read_bytes()


def valkey_files(audit: Audit) -> Iterator[tuple[str, bytes]]:
    with redis.Redis.from_url(audit.servers.valkey.url()) as broker:
        broker.save()
    folder = audit.servers.valkey.folder
    for path, content in read_files(sorted(folder.rglob("*"))):
        if path != folder / "password":
            yield f"Valkey file {path.name}", content


def logs(audit: Audit) -> Iterator[tuple[str, bytes]]:
    for running in audit.deployment.product.running:
        yield f"output of {running.name}", running.log.read_bytes()


def posts(audit: Audit) -> Iterator[tuple[str, bytes]]:
    """Headers and bodies of the posts to the webhook, without the request line, which contains its URL."""
    for headers, body in audit.receiver.posts():
        named_headers = {name: value for name, value in headers.items() if name}
        yield "alert", repr(named_headers).encode() + body


def root_files(root: Path) -> Iterator[tuple[str, bytes]]:
    """Files that beat and other processes write to their working directory."""
    for path, content in read_files(root.iterdir()):
        yield f"file {path.name}", content


def read_files(paths: Iterable[Path]) -> Iterator[tuple[Path, bytes]]:
    """Those that are files, with their content, without those that a running process has removed meanwhile."""
    for path in paths:
        with suppress(FileNotFoundError):
            if path.is_file():
                yield path, path.read_bytes()
