"""How verbs speak to people: progress on stderr, and many hubs in few words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Page = TypeVar("Page", bound=Sized)

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
