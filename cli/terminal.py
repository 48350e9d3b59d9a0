"""How verbs speak to people: progress on stderr, times in words, and nothing that a terminal would obey."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from datetime import datetime
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Page = TypeVar("Page", bound=Sized)

MINUTE, HOUR, DAY = 60, 3600, 86_400
UNITS = (("d", DAY, "h", HOUR), ("h", HOUR, "min", MINUTE), ("min", MINUTE, "s", 1))
#: Hubs that are named where there are many.
FIRST_FEW = 5


def example(*lines: str) -> str:
    """The end of a verb's `--help`, its lines kept as they are."""
    return "\n".join(("\b", "Example:", *(f"  {line}" for line in lines)))


@contextmanager
def progress() -> Iterator[Progress]:
    """On stderr, and only where that is a terminal: a log file is no place for a bar."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as shown:
        yield shown


@contextmanager
def watched(total: int) -> Iterator[Callable[[Iterable[Page], str], Iterator[Page]]]:
    """Hands pages of rows on and shows how far they are; `total` is the number of rows, or close to it."""
    with progress() as shown:

        def watch(pages: Iterable[Page], what: str) -> Iterator[Page]:
            task = shown.add_task(what, total=total)
            for page in pages:
                yield page
                shown.advance(task, len(page))

        yield watch


def told(hubs: Sequence[int]) -> str:
    """`hub 62515`, `3 hubs (1, 2, 3)`, `1,204 hubs (1, 2, 3, 4, 5, …)`."""
    if len(hubs) == 1:
        return f"hub {hubs[0]}"
    first = [str(hub) for hub in hubs[:FIRST_FEW]]
    more = ["…"] if len(hubs) > FIRST_FEW else []
    return f"{len(hubs):,} hubs ({', '.join(first + more)})"


def harmless(text: str) -> str:
    """What others wrote, on one line, without the control characters that move a cursor or change a title."""
    return "".join(character if character.isprintable() else "?" for character in text)


def ago(then: datetime, now: datetime) -> str:
    """`3 min ago`, `in 12 s`."""
    seconds = (now - then).total_seconds()
    return f"{span(seconds)} ago" if seconds >= 0 else f"in {span(-seconds)}"


def span(seconds: float) -> str:
    """Seconds in the two units that matter: `45 s`, `7 min 30 s`, `3 h 5 min`, `2 d 4 h`."""
    whole = int(seconds)
    for unit, size, smaller, smaller_size in UNITS:
        if whole >= size:
            many, rest = divmod(whole, size)
            return f"{many} {unit} {rest // smaller_size} {smaller}" if rest >= smaller_size else f"{many} {unit}"
    return f"{whole} s"
