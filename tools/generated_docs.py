"""Writes the files that are made from the code: `.env.example`, `docs/settings.md`, `docs/command.md` (`make docs`).

`tests/unit/test_generated_docs.py` fails where a file is not what this would write.
"""

from __future__ import annotations

from pathlib import Path

from shared.setting_fields import Process, Setting, Source
from shared.settings import DECLARED, REQUIRED, list_required

ROOT = Path(__file__).resolve().parent.parent

ENV_INTRODUCTION = """\
# Copy to .env and fill in the first three: then tokenkeeper talks to HubSpot instead of the simulator.
# Your app's page at HubSpot shows them; enter this redirect URL there: http://localhost:5000/oauth/callback
# A change takes effect with: docker compose up -d --force-recreate
# (compose takes $ for a variable: put a value that contains one in single quotes)
# Made from shared/settings.py by `make docs`; docs/settings.md says more.

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

<!-- Made from shared/settings.py by `make docs`: edit that. -->

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


def main() -> None:
    for path, text in generate().items():
        (ROOT / path).write_text(text, encoding="utf-8")


def generate() -> dict[str, str]:
    """Path in the project to text."""
    return {".env.example": write_env_example(), "docs/settings.md": write_settings_page()}


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


if __name__ == "__main__":
    main()
