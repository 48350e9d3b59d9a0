"""Checks files with the schemas that check-jsonschema brings along."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner


def find_schema_errors(schema: str, path: Path) -> str:
    """What check-jsonschema prints; empty for a valid file."""
    from check_jsonschema import main  # two seconds of CPU time

    result = CliRunner().invoke(main, ["--builtin-schema", schema, str(path)])
    return "" if result.exit_code == 0 else f"exit status {result.exit_code}: {result.output}"
