"""Folders for the files of PostgreSQL and Valkey, in memory where the machine has room.

On a disk a new database costs a quarter of a second of CPU, in memory a fiftieth. Pytest's own folders do not do:
where tests run as root, the server's account may not enter them.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

MEMORY = Path("/dev/shm")
LEAST_FREE_BYTES = 2 << 30
#: Names the folder that the processes of a run of tests share.
RUN_FOLDER = "TEST_RUN_FOLDER"


@contextmanager
def server_folder(name: str, mode: int = 0o711) -> Iterator[Path]:
    folder = make_server_folder(name, mode)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def make_server_folder(name: str, mode: int = 0o711) -> Path:
    folder = Path(tempfile.mkdtemp(prefix=f"tokenkeeper-{name}-", dir=_fast_folder()))
    folder.chmod(mode)
    return folder


def make_once(name: str, fill: Callable[[Path], None]) -> Path:
    """A folder that `fill` has filled, in this process or in another one of the same run of tests."""
    shared = Path(os.environ[RUN_FOLDER])
    folder = shared / name
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (shared / f"{name}.filled").exists():
            shutil.rmtree(folder, ignore_errors=True)  # of an attempt that failed
            folder.mkdir()
            folder.chmod(0o711)
            fill(folder)
            (shared / f"{name}.filled").touch()
    return folder


def _fast_folder() -> Path | None:
    """None for the system's default folder: Docker gives a container 64 MB of /dev/shm."""
    has_room = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= LEAST_FREE_BYTES
    return MEMORY if has_room else None
