"""Each sample output in docs/command.md is what the command prints, as a process, on a database like the manual's."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable

import pytest

from shared.db.refresh.leases import RefreshResult
from shared.domain import connection as rules
from shared.domain.account import AccountDetails
from shared.domain.errors import InvalidGrant
from shared.domain.grant import Introspection
from shared.token_cipher import TokenCipher
from tests.support.command import Command
from tests.support.stores import ConnectionFixture, SqlFixture
from tools.generated_docs import read_outputs

OUTPUTS = read_outputs()
#: `roles` creates roles of the whole server: tests/integration/test_roles.py.
SAMPLES = [line for line in OUTPUTS if line != "tokenkeeper roles"]
CORRELATION = "0f6a0f3a-7a4a-4b9e-9f5d-3d1f2f6c8a11"
#: What differs from run to run.
VARIABLE = re.compile(
    r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d( UTC|\+00:00)?"
    r"|\d+ (s|min|h|d)( \d+ (s|min|h))?( ago)?|in \d+ \w+|\d+\.\d+ s|http://localhost:\d+|PostgreSQL [\d.]+"
)


@pytest.fixture
def tokenkeeper(environment: Callable[..., dict[str, str]]) -> Command:
    return Command(environment(SWEEP_SECONDS="60"))


@pytest.fixture
def connections(tokenkeeper: Command, connections: ConnectionFixture, sql: SqlFixture) -> ConnectionFixture:
    """The manual's: one account is connected, one has uninstalled the app."""
    cipher = TokenCipher([tokenkeeper.environment["TOKEN_KEYS"]])
    accounts = (
        (62515, "acme.com", AccountDetails(name="Acme Ltd", account_type="SANDBOX", region="eu1")),
        (62517, "umbrella.example", AccountDetails(name="Umbrella Ltd", account_type="STANDARD", region="na1")),
    )
    for hub_id, domain, details in accounts:
        connections.install(
            hub_id, encrypted_refresh_token=cipher.encrypt_refresh_token(hub_id, f"token-of-{hub_id}"), ago=60
        )
        connections.stores.save_account_info(hub_id, domain, f"admin@{domain}", details)
    dead = InvalidGrant("BAD_REFRESH_TOKEN", http_status=400, correlation_id=CORRELATION)
    claimed = connections.claim_one(62517)
    suspect = rules.apply_failure(claimed.connection, dead, connections.stores.claims.clock.now())
    connections.stores.results.save(
        [RefreshResult(claimed.lease, rules.apply_introspection(suspect, dead, Introspection(active=False)))]
    )
    connections.stores.provider.begin_sweep(2)
    if sql.value("SHOW log_min_error_statement") != "panic":  # a server of the tester's own
        sql.rows("ALTER SYSTEM SET log_min_error_statement = panic")
        sql.rows("ALTER SYSTEM SET log_error_verbosity = terse")
        sql.rows("SELECT pg_reload_conf()")
    return connections


def normalize(text: str) -> list[str]:
    """Lines with variable values as dots; one dot for a duration of one unit or two ("30 min", "29 min 59 s")."""
    # `readers` names the other databases of the server, which are those of other tests.
    lines = (" ".join(VARIABLE.sub("·", line).split()) for line in text.splitlines() if " readers: " not in line)
    return [re.sub(r"·( ·)+", "·", line) for line in lines]


@pytest.mark.usefixtures("connections")
@pytest.mark.parametrize("line", SAMPLES)
def test_a_sample_output_is_what_the_command_prints(tokenkeeper: Command, line: str) -> None:
    result = tokenkeeper.run_process(*shlex.split(line)[1:])
    assert (result.status, result.err) == (0, "")
    assert normalize(result.out) == normalize(OUTPUTS[line])
