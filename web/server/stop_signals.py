"""A signal to stop that reaches a gunicorn worker while it starts.

From the fork until `Worker.init_signals()` the worker has the handlers of the master, which put a signal into the
master's queue. In the worker nothing reads its copy of that queue: the signal would be lost, the master sends no other
one, and the worker would serve on until it is killed after `graceful_timeout`.
"""

from __future__ import annotations

import os
import queue
import signal
from contextlib import suppress

#: What gunicorn's master, a terminal or a service manager sends to a worker.
STOP_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGQUIT})


def block_stop_signals(received: queue.SimpleQueue[int]) -> None:
    """The kernel keeps them until `unblock_stop_signals()`, those in the worker's copy of the master's queue, too.

    Of these the master may have received some before the fork: then it is about to stop this worker, too.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    with suppress(queue.Empty):
        while True:
            if (signum := received.get_nowait()) in STOP_SIGNALS:
                os.kill(os.getpid(), signum)


def unblock_stop_signals() -> None:
    """The worker's own handlers get what arrived meanwhile."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
