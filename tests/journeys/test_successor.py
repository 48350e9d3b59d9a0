"""From one app to its successor, as docs/several-apps.md says: customers install again, the old app is disconnected."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from tests.support.apps_file import use_apps_file
from tests.support.command import Command
from tests.support.deployment import Deployment
from tests.support.environment import ROOT
from tests.support.polling import until
from tests.support.product import Product

MANUAL = (ROOT / "docs/several-apps.md").read_text(encoding="utf-8").split("## From one app to its successor")[1]
MOVED, LEFT = 62515, 62516
SUCCESSOR = "the-successor"
ADA = 222222


def read_statement(beginning: str) -> str:
    """A statement of the manual, without its indentation and its semicolon."""
    [block] = [block for block in MANUAL.split("```sql\n")[1:] if block.lstrip().startswith(beginning)]
    return block.split(";")[0]


def install(deployment: Deployment, url: str, hub_id: int, user_id: int | None = None) -> None:
    with requests.Session() as browser:
        redirect = browser.get(url, allow_redirects=False, timeout=60)
        callback_url = deployment.simulator.allow(redirect.headers["location"], hub_id, user_id)
        assert browser.get(callback_url, allow_redirects=False, timeout=60).status_code == 303


def list_connections(deployment: Deployment) -> list[tuple[object, ...]]:
    return deployment.sql.rows("SELECT app, hub_id, user_id, status FROM hubspot.connections ORDER BY app, hub_id")


@pytest.fixture
def restart(idle_deployment: Deployment, tmp_path: Path) -> Iterator[Callable[[Mapping[str, str]], Deployment]]:
    """A function that stops all processes, and starts them with another environment."""
    products = [idle_deployment.product]

    def restart_with(environment: Mapping[str, str]) -> Deployment:
        products[-1].stop()
        folder = tmp_path / f"restart-{len(products)}"
        folder.mkdir()
        products.append(Product(environment, folder))
        return Deployment(products[-1], idle_deployment.simulator, idle_deployment.sql).start()

    yield restart_with
    products[-1].stop()


def test_customers_move_from_one_app_to_its_successor_step_by_step(
    idle_deployment: Deployment, restart: Callable[[Mapping[str, str]], Deployment], tmp_path: Path
) -> None:
    deployment, environment = idle_deployment, idle_deployment.product.environment
    deployment.simulator.add_app(SUCCESSOR, client_secrets=["successor-secret"], user_level=True)
    # 0. One app, by variables, with two accounts.
    install_url = f"{deployment.start().url}/install"
    for hub_id in (MOVED, LEFT):
        install(deployment, install_url, hub_id)
    until(lambda: len(deployment.tokens()) == 2)

    # 1. Both in the file: the old connections go on.
    successor = {"client_id": SUCCESSOR, "client_secret": "successor-secret", "user_level": True}
    several = use_apps_file(environment, tmp_path / "apps.toml", {"default": {}, "successor": successor})
    deployment = restart(several)
    before = deployment.make_due(MOVED, LEFT)
    until(lambda: all(deployment.tokens().get(hub_id) not in (None, before[hub_id]) for hub_id in before))

    # 2. A customer comes to the new app.
    install(deployment, f"{install_url}?app=successor", MOVED, ADA)
    prefer_new = read_statement("SELECT access_token")
    until(lambda: deployment.sql.value("SELECT count(*) FROM hubspot.tokens") == 3)

    # 3. Jobs prefer the new app, and fall back to the old one.
    [(chosen,)] = deployment.sql.rows(prefer_new)
    assert deployment.sql.rows("SELECT app, user_id FROM hubspot.tokens WHERE access_token = %s", chosen) == [
        ("successor", ADA)
    ]
    [(fallback,)] = deployment.sql.rows(prefer_new.replace(str(MOVED), str(LEFT)))
    assert deployment.are_live(chosen, fallback)

    # 4. Who is left?
    assert [row[0] for row in deployment.sql.rows(read_statement("SELECT old.hub_id"))] == [LEFT]

    # 5. The old app is disconnected where the new one is there, and only the old one.
    tokenkeeper = Command(several)
    result = tokenkeeper("disconnect", str(MOVED), "--app", "default", "--yes")
    assert result.status == 0, result
    assert list_connections(deployment) == [
        ("default", MOVED, None, "disconnected"),
        ("default", LEFT, None, "active"),
        ("successor", MOVED, ADA, "active"),
    ]
    assert deployment.sql.rows(prefer_new) == [(chosen,)]
    assert deployment.are_live(chosen)

    # 6. The old app leaves the file: what is left of it is served while its token lives, and the new one is refreshed.
    deployment = restart(use_apps_file(environment, tmp_path / "apps.toml", {"successor": successor}))
    deployment.sql.rows("UPDATE tokenkeeper.connections SET due_at = now()")
    until(lambda: deployment.sql.rows(prefer_new) not in ([], [(chosen,)]))
    assert ("default", LEFT, None, "active") in list_connections(deployment)
    redirect = requests.get(install_url, allow_redirects=False, timeout=60)
    assert parse_qs(urlsplit(redirect.headers["location"]).query)["client_id"] == [SUCCESSOR]
