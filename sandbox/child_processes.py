"""Processes that we start: none of them outlives us, and a stop is asked for politely first."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable

PR_SET_PDEATHSIG = 1


def die_with_parent(signum: int) -> Callable[[], None] | None:
    """For Popen's preexec_fn: Linux sends the child `signum` when the thread that starts it ends, even by SIGKILL.

    So start long-lived children from the main thread. Elsewhere there is no such thing: None.
    """
    if sys.platform != "linux":
        return None
    libc, parent = ctypes.CDLL(None), os.getpid()

    def before_exec() -> None:
        libc.prctl(PR_SET_PDEATHSIG, int(signum))
        if os.getppid() != parent:  # it died before we could ask
            os._exit(1)

    return before_exec


def stop_process(process: subprocess.Popen[bytes], signum: int = signal.SIGTERM, patience: float = 20.0) -> int:
    """Ask, wait for `patience` seconds, insist. Returns the exit status, negative for a signal."""
    if process.poll() is None:
        process.send_signal(signum)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()


def signal_group(leader: int, signum: int) -> bool:
    """Signal whatever is left of the session that `leader` began; False where nothing is."""
    try:
        os.killpg(leader, signum)
    except (ProcessLookupError, PermissionError):  # macOS: EPERM for a group of zombies
        return False
    return True
