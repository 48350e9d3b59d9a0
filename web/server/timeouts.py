"""Asks a server that may be frozen, and stops waiting in time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from typing import TypeVar

T = TypeVar("T")

#: Questions that may hang at once in this process; past that nobody is made to wait for yet another.
_slots = threading.BoundedSemaphore(64)


class TimedOut(Exception):
    """No answer in time. The question may still be answered, or done, later: ask only what may be repeated."""


def run_within(seconds: float, call: Callable[[], T]) -> T:
    """The call's result. Raises TimedOut after `seconds`, or what the call raises.

    For what has only a time limit per socket operation and tries more than once: the sum is what people wait.
    """
    try:
        return run_in_thread(call).result(seconds)
    except TimeoutError:
        raise TimedOut(f"no answer within {seconds} s") from None


def run_in_thread(call: Callable[[], T]) -> Future[T]:
    """The call's answer, some day: it runs in a thread of its own, which is left behind where nobody waits."""
    answer: Future[T] = Future()
    if _slots.acquire(blocking=False):
        around = copy_context()  # the span that this is in
        threading.Thread(target=around.run, args=(_run, call, answer), daemon=True).start()
    else:
        answer.set_exception(TimeoutError())
    return answer


def _run(call: Callable[[], T], answer: Future[T]) -> None:
    try:
        answer.set_result(call())
    except BaseException as error:  # noqa: BLE001  handed to whoever asked
        answer.set_exception(error)
    finally:
        _slots.release()
