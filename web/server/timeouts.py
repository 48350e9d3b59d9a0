"""Time limits for calls that have none of their own: the call runs in a thread, which is abandoned after the limit."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from typing import TypeVar

T = TypeVar("T")

#: Calls that may run at once in this process. Beyond that a call fails at once, as if it had timed out.
MAX_CALLS = 64
_slots = threading.BoundedSemaphore(MAX_CALLS)


class TimedOut(Exception):
    """No result in time. The call may still succeed later: run only what may be repeated."""


def run_within(seconds: float, call: Callable[[], T]) -> T:
    """The call's result. Raises TimedOut after `seconds`, or what the call raises.

    Only for kombu and redis-py, which limit each operation on a socket and try several times: the sum has no limit.
    Calls over HTTP and to PostgreSQL obey `shared.net.deadline` instead.
    """
    try:
        return run_in_thread(call).result(seconds)
    except TimeoutError:
        raise TimedOut(f"no answer within {seconds} s") from None


def run_in_thread(call: Callable[[], T]) -> Future[T]:
    """Runs the call in a thread of its own. At the limit of calls the future holds a TimeoutError."""
    result: Future[T] = Future()
    if _slots.acquire(blocking=False):
        context = copy_context()  # the current span of a trace
        threading.Thread(target=context.run, args=(_run, call, result), daemon=True).start()
    else:
        result.set_exception(TimeoutError())
    return result


def _run(call: Callable[[], T], result: Future[T]) -> None:
    try:
        result.set_result(call())
    except BaseException as error:  # noqa: BLE001  the caller of result() raises it
        result.set_exception(error)
    finally:
        _slots.release()
