"""Whether worker or beat still turns: `python -m worker.liveness celery`, or `celerybeat`, or the name of another node.

Exit status 0 or 1. It reads a file that the process writes, and imports nothing: it may be asked every few seconds.
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

#: In seconds, from some point on, and never set.
Clock = Callable[[], float]

#: Seconds between two beats of the pulse.
BEAT = 5.0
#: Seconds without one after which a process counts as stuck: a broker that hangs may hold it up for half of that.
SILENCE = 60.0


class HeartbeatFile:
    """A file that says when its process was last seen to turn, by the clock that nobody sets."""

    def __init__(self, node: str, folder: Path | None = None, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        folder = folder or Path(tempfile.gettempdir())
        self.path = folder / f"tokenkeeper-{os.getuid()}" / re.sub(r"[^\w@.-]", "_", node)

    def beat(self) -> None:
        """Raises OSError where the folder for temporary files takes none, or is not ours."""
        self.path.parent.mkdir(mode=0o700, exist_ok=True)
        # Always of one length, so that whoever reads meanwhile finds a number.
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            os.pwrite(descriptor, b"%020.3f\n" % self._clock(), 0)
        finally:
            os.close(descriptor)

    def end(self) -> None:
        with suppress(OSError):
            self.path.unlink()

    def silence(self) -> float | None:
        """Seconds since the last beat. None: there was none since this machine started."""
        try:
            since = self._clock() - float(self.path.read_text())
        except (OSError, ValueError):
            return None
        return max(0.0, since) if since > -1 else None  # a second: what is written was rounded


def main(arguments: list[str], folder: Path | None = None, clock: Clock = time.monotonic) -> int:
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)  # noqa: T201
        return 2
    node = arguments[0] if "@" in arguments[0] else f"{arguments[0]}@{socket.gethostname()}"
    silence = HeartbeatFile(node, folder, clock).silence()
    alive = silence is not None and silence < SILENCE
    told = "never seen" if silence is None else f"last seen {silence:.0f} s ago"
    print(f"{node}: {'alive' if alive else 'NOT alive'}, {told}")  # noqa: T201
    return 0 if alive else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
