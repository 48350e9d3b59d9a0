"""docs/command.md: each verb's help stands there letter by letter, each example prints what is shown."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable

import pytest

from cli.main import verbs
from shared.db.refresh.claims import RefreshResult
from shared.domain import connection as rules
from shared.domain.errors import InvalidGrant
from shared.domain.grant import Introspection
from shared.token_cipher import TokenCipher
from tests.support.command import Command
from tests.support.environment import ROOT
from tests.support.stores import ConnectionFixture, SqlFixture
from tests.unit.cli.test_main import every_command

MANUAL = ROOT / "docs" / "command.md"
BLOCKS = dict(re.findall(r"```console\n\$ (tokenkeeper[^\n]*)\n(.*?)```", MANUAL.read_text(), re.DOTALL))
HELP = [command for command in BLOCKS if command.endswith("--help")]
EXAMPLES = [command for command in BLOCKS if not command.endswith("--help")]
CORRELATION = "0f6a0f3a-7a4a-4b9e-9f5d-3d1f2f6c8a11"
#: What is another at each run.
PASSING = re.compile(
    r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d( UTC|\+00:00)?"
    r"|\d+ (s|min|h|d)( \d+ (s|min|h))?( ago)?|in \d+ \w+|\d+\.\d+ s|http://localhost:\d+|PostgreSQL [\d.]+"
)


@pytest.fixture
def tokenkeeper(environment: Callable[..., dict[str, str]]) -> Command:
    return Command(environment(SWEEP_SECONDS="60"))  # a busy machine may take its time


@pytest.fixture
def connections(tokenkeeper: Command, connections: ConnectionFixture, sql: SqlFixture) -> ConnectionFixture:
    """The manual's: one account is well, one has uninstalled the app."""
    cipher = TokenCipher([tokenkeeper.environment["TOKEN_KEYS"]])
    for hub_id, domain in ((62515, "acme.com"), (62517, "umbrella.example")):
        connections.install(
            hub_id, encrypted_refresh_token=cipher.encrypt_refresh_token(hub_id, f"token-of-{hub_id}"), ago=60
        )
        connections.stores.account_info.save(hub_id, domain, f"admin@{domain}")
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


def shape(text: str) -> list[str]:
    return [" ".join(PASSING.sub("·", line).split()) for line in text.splitlines()]


def test_every_verb_has_its_place() -> None:
    expected = {f"tokenkeeper {' '.join(path)} --help" for path in every_command()} | {"tokenkeeper --help"}
    assert set(HELP) == expected
    assert re.findall(r"^## (\w+)$", MANUAL.read_text(), re.MULTILINE) == list(verbs.list_commands(None))


@pytest.mark.parametrize("command", HELP)
def test_help_is_what_the_manual_shows(command: str) -> None:
    ran = Command({"PATH": "/usr/bin:/bin", "COLUMNS": "80", "LANG": "C.UTF-8"})(*shlex.split(command)[1:])
    assert (ran.status, ran.out) == (0, BLOCKS[command])


@pytest.mark.usefixtures("connections")
@pytest.mark.parametrize("command", EXAMPLES)
def test_an_example_prints_what_the_manual_shows(tokenkeeper: Command, command: str) -> None:
    ran = tokenkeeper(*shlex.split(command)[1:])
    assert (ran.status, ran.err) == (0, "")
    assert shape(ran.out) == shape(BLOCKS[command])
