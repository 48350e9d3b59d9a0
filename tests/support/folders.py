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
OWNER = "owner"


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


def make_run_folder() -> Path:
    """For this process, which begins the run, and for those that it starts."""
    folder = make_server_folder("run")
    (folder / OWNER).write_text(str(os.getpid()))
    os.environ[RUN_FOLDER] = str(folder)
    return folder


def read_owner() -> int:
    """The id of the process that began the run of tests."""
    return int((Path(os.environ[RUN_FOLDER]) / OWNER).read_text())


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


def read_made(name: str, file: str) -> str | None:
    """What is in a file of the folder that `make_once` made; None: it made none."""
    made = Path(os.environ[RUN_FOLDER]) / name / file
    return made.read_text() if made.exists() else None


def _fast_folder() -> Path | None:
    """None for the system's default folder: Docker gives a container 64 MB of /dev/shm."""
    has_room = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= LEAST_FREE_BYTES
    return MEMORY if has_room else None
