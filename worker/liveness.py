"""Health check of worker and beat: `python -m worker.liveness celery`, or `celerybeat`, or the name of another node.

Exit status 0 where the process is alive, 1 where it is not. It reads a file that the process writes, and imports
nothing heavy: containers run it every few seconds. A worker's pool processes share a second file: it is alive while at
least one of them is.
"""

from __future__ import annotations

import os
import re
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

#: Seconds since an arbitrary point, never set back or forward.
Clock = Callable[[], float]

#: Between two heartbeats.
HEARTBEAT_SECONDS = 5.0
#: A process without a heartbeat for so long counts as stuck. A broker that hangs can delay one by half of this.
STUCK_AFTER_SECONDS = 60.0
#: Of the node's name, in the name of the file that its pool processes share.
POOL_SUFFIX = ".pool"


class HeartbeatFile:
    """A file with the time of its process's last heartbeat, by the machine's monotonic clock."""

    def __init__(self, node: str, folder: Path | None = None, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        folder = folder or Path(tempfile.gettempdir())
        self.path = folder / f"tokenkeeper-{os.getuid()}" / re.sub(r"[^\w@.-]", "_", node)

    def write(self) -> None:
        """Raises OSError where the folder for temporary files cannot be written, or belongs to another user."""
        self.path.parent.mkdir(mode=0o700, exist_ok=True)
        # Always of the same length, so that a reader finds a whole number at any time.
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            os.pwrite(descriptor, b"%020.3f\n" % self._clock(), 0)
        finally:
            os.close(descriptor)

    def remove(self) -> None:
        with suppress(OSError):
            self.path.unlink()

    def seconds_since_last(self) -> float | None:
        """None: there was no heartbeat since this machine started."""
        try:
            seconds = self._clock() - float(self.path.read_text())
        except (OSError, ValueError):
            return None
        return max(0.0, seconds) if seconds > -1 else None  # written times are rounded, by far less than a second


def main(arguments: list[str], folder: Path | None = None, clock: Clock = time.monotonic) -> int:
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)  # noqa: T201
        return 2
    node = arguments[0] if "@" in arguments[0] else f"{arguments[0]}@{socket.gethostname()}"
    seconds = HeartbeatFile(node, folder, clock).seconds_since_last()
    pool_seconds = HeartbeatFile(node + POOL_SUFFIX, folder, clock).seconds_since_last()  # None: beat, or it starts
    is_pool_stuck = pool_seconds is not None and pool_seconds >= STUCK_AFTER_SECONDS
    is_alive = seconds is not None and seconds < STUCK_AFTER_SECONDS and not is_pool_stuck
    last = "no heartbeat yet" if seconds is None else f"last heartbeat {seconds:.0f} s ago"
    last += f", of its pool processes {pool_seconds:.0f} s ago" if is_pool_stuck else ""
    print(f"{node}: {'alive' if is_alive else 'NOT alive'}, {last}")  # noqa: T201
    return 0 if is_alive else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
