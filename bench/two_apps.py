"""Measures one app while another one of the same installation is down: HubSpot refuses its secret, or never answers.

What is down has as many connections, all of them overdue.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from bench import product
from bench.hubspot import UNANSWERED_SECRET, make_refresh_token
from bench.stored_connections import prepare_overdue
from bench.testbed import Testbed
from shared.domain.identity import DEFAULT_APP
from shared.settings.apps_file import REPLACED_VARIABLES

OTHER_APP, REFUSED_SECRET = "other", "a-secret-that-hubspot-refuses"
MAKE_REFRESHED = """
UPDATE tokenkeeper.connections AS c
   SET access_token = m.access_token, expires_at = m.expires_at, lifetime_seconds = m.lifetime_seconds,
       refreshed_at = m.refreshed_at, scopes = m.scopes, account_info_due_at = NULL
  FROM (SELECT * FROM tokenkeeper.connections WHERE app = 'default' AND access_token IS NOT NULL LIMIT 1) AS m
 WHERE c.app = 'other'
"""
#: Of the run before.
FORGET_STATE = "DELETE FROM tokenkeeper.provider WHERE app = 'other'"
MAKE_OVERDUE = "UPDATE tokenkeeper.connections SET due_at = now() - interval '1 minute' WHERE app = 'other'"
DELETE_OTHER_APP = """
DELETE FROM tokenkeeper.connections WHERE app = 'other';
DELETE FROM tokenkeeper.provider WHERE app = 'other';
DELETE FROM tokenkeeper.apps WHERE app = 'other'
"""


@dataclass(frozen=True, slots=True)
class TwoApps:
    """Refreshes a second of one app: alone, and beside one that is down."""

    alone: float
    beside_refused: float
    beside_silent: float


@contextmanager
def import_other_app(testbed: Testbed, size: int) -> Iterator[None]:
    """As many connections of another app, of other accounts, until the end of the block."""
    lines = [f"{hub_id},{make_refresh_token(hub_id)},{OTHER_APP}" for hub_id in range(size + 1, 2 * size + 1)]
    csv = "\n".join(["hub_id,refresh_token,app", *lines, ""]).encode()
    _with_apps(testbed, REFUSED_SECRET).run_command("import", "tokenkeeper", "import", "-", stdin=csv)
    testbed.execute(MAKE_REFRESHED)
    try:
        yield
    finally:
        testbed.execute(DELETE_OTHER_APP)


def measure_two_apps(testbed: Testbed, size: int, warm_up_seconds: float, seconds: float) -> TwoApps:
    """Raises BenchmarkError, ProcessFailed."""
    rates = []
    for secret in (None, REFUSED_SECRET, UNANSWERED_SECRET):
        testbed.execute(FORGET_STATE)
        testbed.execute(MAKE_OVERDUE)
        prepare_overdue(testbed, size, warm_up_seconds + seconds)
        throughput = product.measure_throughput(_with_apps(testbed, secret), warm_up_seconds, seconds)
        rates.append(throughput.interval.refreshes_per_second)
    return TwoApps(*rates)


def _with_apps(testbed: Testbed, other_secret: str | None) -> Testbed:
    """The same with HUBSPOT_APPS_FILE; None: without the other app."""
    environment = testbed.environment
    secrets = {DEFAULT_APP: environment["HUBSPOT_CLIENT_SECRET"]}
    if other_secret is not None:
        secrets[OTHER_APP] = other_secret
    path = testbed.folder / "apps.toml"
    path.write_text("\n".join(_describe(name, secret, environment) for name, secret in secrets.items()))
    kept = {name: value for name, value in environment.items() if name not in REPLACED_VARIABLES}
    return replace(testbed, environment={**kept, "HUBSPOT_APPS_FILE": str(path)})


def _describe(name: str, secret: str, environment: dict[str, str]) -> str:
    keys = {
        "client_id": f"{environment['HUBSPOT_CLIENT_ID']}{'' if name == DEFAULT_APP else '-' + name}",
        "client_secret": secret,
        "redirect_uri": environment["HUBSPOT_REDIRECT_URI"],
        "scopes": environment["HUBSPOT_SCOPES"],
    }
    return "\n".join([f"[{name}]", *(f'{key} = "{value}"' for key, value in keys.items()), ""])
