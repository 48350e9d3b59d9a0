"""Folders for the files of PostgreSQL and Valkey, in memory where the machine has room.

On a disk a new database costs a quarter of a second of CPU, in memory a fiftieth. Pytest's own folders do not do:
where tests run as root, the server's account may not enter them.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MEMORY = Path("/dev/shm")
LEAST_FREE_BYTES = 2 << 30


@contextmanager
def server_folder(name: str, mode: int = 0o711) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix=f"tokenkeeper-{name}-", dir=_fast_folder()))
    folder.chmod(mode)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _fast_folder() -> Path | None:
    """None for the system's default folder: Docker gives a container 64 MB of /dev/shm."""
    has_room = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= LEAST_FREE_BYTES
    return MEMORY if has_room else None
