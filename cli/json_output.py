"""How verbs speak to machines: one JSON object a line with `--json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime

import click

json_option = click.option("--json", "as_json", is_flag=True, help="For machines: JSON, one object a line.")


def json_line(values: Mapping[str, object]) -> str:
    """Dates as in ISO 8601."""
    return json.dumps(values, default=iso, separators=(",", ":"))


def iso(value: datetime) -> str:
    return value.isoformat(timespec="seconds")
