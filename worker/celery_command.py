"""Runs worker and beat without what only other commands of `celery` use: 16 MB in each group of processes.

The command `celery` imports what all its commands need before it reads its arguments: Flower with Tornado, a shell with
prompt_toolkit. Unloading them frees nothing, as their memory lies among that of others. So the process replaces
itself, as soon as that command imports this package, by one that runs the same command without them: process ID,
arguments, environment, open files and working folder stay, and all that Celery does with them (docs/adr/0040).

Imports little: health checks import this package, too.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from shared.optional_imports import hide_optional

COMMANDS = ("worker", "beat")
#: What may stand before the command. With other options the process stays as it is.
OPTIONS = frozenset({"-A", "--app", "worker.app", "--app=worker.app", "-q", "--quiet", "-C", "--no-color"})
CODE = "from worker.celery_command import main; main()"


def replace_process() -> None:
    """Returns where this process is another one than `celery … worker` or `celery … beat`, or cannot be replaced."""
    if is_celery(sys.modules["__main__"]) and is_replaceable(sys.argv[1:]) and sys.executable:
        from subprocess import (  # type: ignore[attr-defined]  # noqa: PLC0415  as multiprocessing does
            _args_from_interpreter_flags,
        )

        with suppress(OSError):
            os.execv(sys.executable, [sys.executable, *_args_from_interpreter_flags(), "-c", CODE, *sys.argv])  # noqa: S606


def is_celery(main_module: ModuleType) -> bool:
    """Whether it is the script `celery` or `python -m celery`, and no program that calls one of them."""
    if spec := main_module.__spec__:
        return spec.name == "celery.__main__"
    return Path(getattr(main_module, "__file__", None) or "").name == "celery"


def is_replaceable(arguments: Sequence[str]) -> bool:
    command = next((index for index, argument in enumerate(arguments) if argument in COMMANDS), None)
    return command is not None and set(arguments[:command]) <= OPTIONS


def main() -> None:
    del sys.argv[0]  # what remains is what the replaced process had
    with _hide_other_commands():
        import celery.bin.celery  # noqa: F401, PLC0415
    from celery.__main__ import main as run_celery  # noqa: PLC0415

    run_celery()


@contextmanager
def _hide_other_commands() -> Iterator[None]:
    from importlib import metadata  # noqa: PLC0415

    shell: Any = ModuleType("click_repl")
    shell.register_repl = lambda _group: None
    sys.modules["click_repl"] = shell
    read_entry_points = metadata.entry_points

    def read_other_entry_points(**selection: Any) -> Any:
        return () if selection == {"group": "celery.commands"} else read_entry_points(**selection)

    metadata.entry_points = read_other_entry_points
    try:
        with hide_optional("pygments"):  # colours what `celery inspect` prints
            yield
    finally:
        metadata.entry_points = read_entry_points
        del sys.modules["click_repl"]
