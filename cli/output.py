"""What the commands' output has in common: help epilogs and progress bars for people, JSON for machines."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from datetime import datetime
from typing import TypeVar

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Page = TypeVar("Page", bound=Sized)

#: Of many hubs, so many are named.
MAX_NAMED_HUBS = 5

json_option = click.option("--json", "as_json", is_flag=True, help="For machines: JSON, one object a line.")
yes_option = click.option("--yes", is_flag=True, help="Do not ask.")


def make_epilog(*examples: str, needs: Sequence[str] = ()) -> str:
    """The end of a command's `--help`: the settings it needs, and examples, with their lines kept as they are."""
    settings = f"Settings: {', '.join(needs)}\n\n" if needs else ""
    return settings + "\n".join(("\b", "Example:", *(f"  {line}" for line in examples)))


def confirm_or_abort(
    question: str, refusal: str = "this asks before it acts, and stdin is no terminal: add --yes"
) -> None:
    """Raises UsageError, with `refusal`, where there is no terminal to ask at, Abort where the answer is no."""
    if sys.stdin is None or not sys.stdin.isatty():  # None: it was closed
        raise click.UsageError(refusal)
    try:
        is_confirmed = click.confirm(question)
    except click.Abort:
        click.echo(err=True)  # the cursor is behind the question
        raise
    if not is_confirmed:
        raise click.Abort


def to_json_line(values: Mapping[str, object]) -> str:
    """Times as in ISO 8601."""
    return json.dumps(values, default=format_time, separators=(",", ":"))


def format_time(value: datetime) -> str:
    return value.isoformat(timespec="seconds")


def format_table_time(value: datetime) -> str:
    """For a table on a terminal, whose heading says UTC."""
    return f"{value:%Y-%m-%d %H:%M:%S}"


@contextmanager
def open_progress() -> Iterator[Progress]:
    """On stderr, and only where that is a terminal: a log file needs no bar."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        yield progress


@contextmanager
def track_pages(total: int) -> Iterator[Callable[[Iterable[Page], str], Iterator[Page]]]:
    """A function that passes pages of rows on and shows how many rows are done; `total` may be an estimate."""
    with open_progress() as progress:

        def track(pages: Iterable[Page], description: str) -> Iterator[Page]:
            task = progress.add_task(description, total=total)
            for page in pages:
                yield page
                progress.advance(task, len(page))

        yield track


def format_hubs(hub_ids: Sequence[int]) -> str:
    """`hub 62515`, `3 hubs (1, 2, 3)`, `1,204 hubs (1, 2, 3, 4, 5, …)`."""
    if len(hub_ids) == 1:
        return f"hub {hub_ids[0]}"
    names = [str(hub_id) for hub_id in hub_ids[:MAX_NAMED_HUBS]]
    more = ["…"] if len(hub_ids) > MAX_NAMED_HUBS else []
    return f"{len(hub_ids):,} hubs ({', '.join(names + more)})"
