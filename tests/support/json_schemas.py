"""Checks files with the schemas that check-jsonschema brings along."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result

from shared.optional_imports import hide_optional


def run_check_jsonschema(*arguments: str) -> Result:
    """In this process: to start another one, and to import what these schemas do not need, takes three seconds."""
    with hide_optional("rfc3987_syntax"):  # the grammar of a format, compiled by the import
        from check_jsonschema import main
    return CliRunner().invoke(main, arguments)


def find_schema_errors(schema: str, path: Path) -> str:
    """What check-jsonschema prints; empty for a valid file."""
    result = run_check_jsonschema("--builtin-schema", schema, str(path))
    return "" if result.exit_code == 0 else f"exit status {result.exit_code}: {result.output}"
