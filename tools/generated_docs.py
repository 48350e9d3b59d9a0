"""Writes the files that are made from the code: `.env.example`, `docs/settings.md`, `docs/command.md` (`make docs`).

`tests/unit/test_generated_docs.py` fails where a file is not what this would write.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
from click.testing import CliRunner

from cli.main import commands
from shared.settings import DECLARED, REQUIRED, list_required
from shared.settings.declaration import Process, Setting, Source

ROOT = Path(__file__).resolve().parent.parent

ENV_INTRODUCTION = """\
# Copy to .env and fill in the first three: then tokenkeeper talks to HubSpot instead of the simulator.
# Your app's page at HubSpot shows them; enter this redirect URL there: http://localhost:5000/oauth/callback
# A change takes effect with: docker compose up -d --force-recreate
# (compose takes $ for a variable: put a value that contains one in single quotes)
# Made from shared/settings/ by `make docs`; docs/settings.md says more.

"""
ENV_GENERATED = """
# The first start makes these where they are empty. Without TOKEN_KEYS, every account has to be installed again.
"""
ENV_OPTIONAL = """
# Everything below is optional: an empty value means the default.
"""
#: Of docker-compose.yml and `make up`, not of the product.
ENV_PORTS = """\
# ports on this machine; default 5000, 5555, 8090
WEB_PORT=
FLOWER_PORT=
SIMULATOR_PORT=
"""
SETTINGS_PAGE = """\
# Settings

<!-- Made from shared/settings/ by `make docs`: edit that. -->

From the environment only. Any `X` may come from the file named by `X_FILE` (Docker and Kubernetes secrets); where both
are set, `X` wins. An empty value counts as not set. `make up` also reads a file `.env` in the project's root.

A missing or malformed setting stops the start with one line that names every bad setting and what it should look like,
never its value. Exit status 78 (web: 4, gunicorn's status for an application that failed to load).

| name | default | example | meaning |
| --- | --- | --- | --- |
{rows}

What each process needs:

{processes}
- a [`tokenkeeper` command](command.md): what it works with
"""

COMMAND_PAGE = """\
# The `tokenkeeper` command

<!-- Made from the command's own --help and tools/command_outputs.txt by `make docs`: edit cli/ instead. -->

{root}
In the containers: `docker compose exec worker tokenkeeper status`. After `make up`, in another terminal:
`. .tokenkeeper/env && tokenkeeper status`. On Kubernetes:
`kubectl exec deploy/tokenkeeper-worker -- tokenkeeper status`.

What holds for every command:

- **Settings** come from the environment, as [settings.md](settings.md) says; a command asks only for those that its
  help names.
- **Exit status** 0: success. 1: failure, or something wrong was found. 2: wrong use. The error is one line on stderr
  that begins with `tokenkeeper: ` and never contains a secret.
- **People** get tables and progress bars where stdout (for bars, stderr) is a terminal, as wide as it is; `NO_COLOR`
  is respected. **Pipes** get plain lines and tabs. **Machines** get `--json`: one object a line, times as in ISO 8601.
- What others wrote (domains, e-mail addresses, errors) cannot move the cursor: control characters are shown as `?`.
- No command prints a token, a key or a password, except `keys new`, which prints the new key.
"""
#: Of the text, on a terminal of 80 columns.
HELP_WIDTH = 78
#: A command line, and what it printed.
OUTPUT = re.compile(r"^\$ (tokenkeeper[^\n]*)\n(.*?)(?=^\$ |\Z)", re.MULTILINE | re.DOTALL)


def main() -> None:
    for path, text in generate().items():
        (ROOT / path).write_text(text, encoding="utf-8")


def generate() -> dict[str, str]:
    """Path in the project to text."""
    return {
        ".env.example": write_env_example(),
        "docs/settings.md": write_settings_page(),
        "docs/command.md": write_command_page(),
    }


def write_env_example() -> str:
    def list_lines(source: Source) -> str:
        return "".join(format_env_lines(each) for each in DECLARED.values() if each.source is source)

    return (
        ENV_INTRODUCTION
        + list_lines(Source.PERSON)
        + ENV_GENERATED
        + list_lines(Source.FIRST_START)
        + ENV_OPTIONAL
        + ENV_PORTS
        + list_lines(Source.DEFAULT)
    )


def format_env_lines(declared: Setting) -> str:
    default = format_default(declared).strip("`")
    is_said = not declared.default or declared.hint == default
    return f"# {declared.hint}{'' if is_said else f'; default {default}'}\n{declared.name}=\n"


def write_settings_page() -> str:
    rows = "\n".join(
        f"| `{each.name}` | {format_default(each)} | `{each.example}` | {each.meaning} |" for each in DECLARED.values()
    )
    processes = "\n".join(f"- {process}: {format_needs(process)}" for process in Process)
    return SETTINGS_PAGE.format(rows=rows, processes=processes)


def format_default(declared: Setting) -> str:
    if declared.required_by:
        everywhere = {Process.WEB, Process.WORKER} <= set(declared.required_by)
        return "required" if everywhere else f"required for {' and '.join(declared.required_by)}"
    if isinstance(declared.default, tuple):
        return f"`{' '.join(declared.default)}`" if declared.default else "empty"
    if isinstance(declared.default, bool):
        return f"`{declared.default}`".lower()
    if isinstance(declared.default, (int, float)):
        return f"{declared.default:g}"
    return f"`{declared.default}`" if declared.default else "empty"


def format_needs(process: Process) -> str:
    needed = list_required(process)
    others = [name for name in REQUIRED if name not in needed]
    names = " and ".join(f"`{name}`" for name in (others if len(others) < len(needed) else needed))
    if not others:
        return "all that are required"
    return f"all that are required but {names}" if len(others) < len(needed) else names


def write_command_page() -> str:
    outputs = read_outputs()
    page = COMMAND_PAGE.format(root=format_help(()))
    for path in list_commands():
        page += f"\n## {path[0]}\n" if len(path) == 1 else ""
        page += "\n" + format_help(path)
        for line, output in outputs.items():
            if len(path) == 1 and line.split()[1] == path[0]:
                page += "\n" + format_console(line, output)
    return page


def list_commands(command: click.Command = commands, *path: str) -> Iterator[tuple[str, ...]]:
    """Every command, and the commands in it, by their names."""
    if path:
        yield path
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            subcommand = command.get_command(context, name)
            if subcommand is not None:
                yield from list_commands(subcommand, *path, name)


def format_help(path: tuple[str, ...]) -> str:
    arguments = [*path, "--help"]
    result = CliRunner().invoke(commands, arguments, prog_name="tokenkeeper", terminal_width=HELP_WIDTH)
    return format_console(" ".join(["tokenkeeper", *arguments]), result.output)


def read_outputs() -> dict[str, str]:
    """Command line to what it prints on the database of tests/integration/test_cli_manual.py."""
    text = (ROOT / "tools" / "command_outputs.txt").read_text(encoding="utf-8")
    return {line: output.rstrip() + "\n" for line, output in OUTPUT.findall(text)}


def format_console(line: str, output: str) -> str:
    return f"```console\n$ {line}\n{output}```\n"


if __name__ == "__main__":
    main()
