"""An environment with several HubSpot apps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shared.settings.apps_file import REPLACED_VARIABLES


def use_apps_file(environment: Mapping[str, str], path: Path, apps: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The environment with HUBSPOT_APPS_FILE at `path` instead of the variables of one app.

    Each app has the keys that its mapping gives; for the others that are required it has the variables' values.
    """
    usual = {
        "client_id": environment["HUBSPOT_CLIENT_ID"],
        "client_secret": environment["HUBSPOT_CLIENT_SECRET"],
        "redirect_uri": environment["HUBSPOT_REDIRECT_URI"],
        "scopes": environment["HUBSPOT_SCOPES"],
    }
    lines = []
    for name, keys in apps.items():
        lines.append(f"[{name}]")
        lines += [f"{key} = {_to_toml(value)}" for key, value in {**usual, **keys}.items()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    kept = {name: value for name, value in environment.items() if name not in REPLACED_VARIABLES}
    return {**kept, "HUBSPOT_APPS_FILE": str(path)}


def _to_toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)
