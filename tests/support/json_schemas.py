"""Checks files with the schemas that check-jsonschema brings along."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from shared.optional_imports import hide_optional


def find_schema_errors(schema: str, path: Path) -> str:
    """What check-jsonschema prints; empty for a valid file."""
    with hide_optional("rfc3987_syntax"):  # a grammar that takes seconds to compile, for a format that no schema has
        from check_jsonschema import main

    result = CliRunner().invoke(main, ["--builtin-schema", schema, str(path)])
    return "" if result.exit_code == 0 else f"exit status {result.exit_code}: {result.output}"
