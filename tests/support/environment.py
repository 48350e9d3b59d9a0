"""The environments of processes that tests start: nothing of the machine's own settings reaches the product."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from cryptography.fernet import Fernet

from sandbox.ports import find_free_port
from sandbox.simulator.control import DEMO_CLIENT_ID, DEMO_CLIENT_SECRET

ROOT = Path(__file__).resolve().parents[2]

#: What a process may know of the machine.
INHERITED_NAMES = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "COVERAGE_PROCESS_CONFIG")

#: Short waits, so that a journey takes seconds. Calls have time: on a busy machine HubSpot's simulator may stand still
#: for seconds. A lease must be at least twice the timeout plus 5.
SHORT_WAITS = {"SWEEP_SECONDS": "0.5", "HTTP_TIMEOUT_SECONDS": "20", "LEASE_SECONDS": "45"}


def inherited_environment() -> dict[str, str]:
    return {name: os.environ[name] for name in INHERITED_NAMES if name in os.environ} | {"PYTHONUNBUFFERED": "1"}


def product_environment(database_url: str, redis_url: str, hubspot_url: str, **changes: str) -> dict[str, str]:
    """Every required setting, with new secrets and a free port for web; keywords add settings or change some."""
    settings = {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "HUBSPOT_CLIENT_ID": DEMO_CLIENT_ID,
        "HUBSPOT_CLIENT_SECRET": DEMO_CLIENT_SECRET,
        "HUBSPOT_REDIRECT_URI": f"http://localhost:{find_free_port()}/oauth/callback",
        "HUBSPOT_SCOPES": "oauth crm.objects.contacts.read",
        "HUBSPOT_API_URL": hubspot_url,
        "HUBSPOT_APP_URL": hubspot_url,
        "TOKEN_KEYS": Fernet.generate_key().decode(),
        "SECRET_KEY": Fernet.generate_key().decode(),
        "OPERATOR_PASSWORD": Fernet.generate_key().decode(),
        # Calls for HubSpot's journal would meet faults and counters that are meant for refreshes: its tests turn it on.
        "JOURNAL_SECONDS": "0",
    }
    return {**inherited_environment(), **settings, **changes}


def web_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a web process: with its own database login, where WEB_DATABASE_URL names one."""
    return {**environment, "DATABASE_URL": environment.get("WEB_DATABASE_URL") or environment.get("DATABASE_URL", "")}
