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
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

from shared.optional_imports import hide_optional

COMMANDS = ("worker", "beat")
#: What may stand before the command. With other options the process stays as it is.
OPTIONS = frozenset({"-A", "--app", "worker.app", "--app=worker.app", "-q", "--quiet", "-C", "--no-color"})
#: Its first argument is the folder that this package was imported from: not the current one, which Python itself would
#: search before all others.
CODE = (
    "import sys; sys.path[: not sys.flags.safe_path] = [sys.argv.pop(1)]; "
    "from worker.celery_command import main; main()"
)
#: For the colours that `celery inspect` prints, for a look at the process's own memory, for other pools, and to declare
#: in C what billiard declares by ctypes, too.
UNUSED = ("pygments", "psutil", "greenlet", "cffi")
FOLDER = str(Path(__file__).parents[1])


def replace_process() -> None:
    """Returns where this process is another one than `celery … worker` or `celery … beat`, or cannot be replaced."""
    options = find_interpreter_options(sys.orig_argv, sys.argv)
    if options is not None and is_replaceable(sys.argv[1:]) and sys.executable:
        with suppress(OSError):
            os.execv(sys.executable, [sys.executable, *options, *make_arguments(*sys.argv)])  # noqa: S606


def make_arguments(script: str, *arguments: str) -> list[str]:
    """Python's, for `celery` with these arguments. `script`: the path by which Celery starts a worker again (SIGHUP).

    The word shows `celery -A worker.app worker` in a list of processes, also where it was `python -m celery`.
    """
    return ["-c", CODE, FOLDER, script, "celery", *arguments]


def find_interpreter_options(command_line: Sequence[str], arguments: Sequence[str]) -> list[str] | None:
    """Those of Python, where it runs the script `celery` or `-m celery`. `arguments`: sys.argv.

    None where it runs another program, also one that runs Celery (a profiler, coverage): that one has more to do.
    """
    length = len(command_line) - len(arguments[1:])
    *options, program = command_line[1:length] or [""]
    if options[-1:] == ["-m"]:
        options.pop()
    others = [word for before, word in pairwise(("", *options)) if word[:1] != "-" and before not in {"-X", "-W"}]
    is_celery = Path(program).name == "celery" and command_line[length:] == arguments[1:] and not others
    return options if is_celery else None


def is_replaceable(arguments: Sequence[str]) -> bool:
    command = next((index for index, argument in enumerate(arguments) if argument in COMMANDS), None)
    return command is not None and set(arguments[:command]) <= OPTIONS


def main() -> None:
    sys.argv[:3] = sys.argv[1:2]  # this and the next line restore what the replaced process had
    del sys.path[0]
    with _hide_other_commands():
        import celery.bin.celery  # noqa: PLC0415
        import celery.utils.debug  # noqa: F401, PLC0415
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
        with hide_optional(*UNUSED):
            yield
    finally:
        metadata.entry_points = read_entry_points
        del sys.modules["click_repl"]
