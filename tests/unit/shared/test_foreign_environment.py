"""Variables of other programs are removed before a library reads them; our own stay."""

from __future__ import annotations

import pytest

from shared.foreign_environment import find_unused_proxies, remove_foreign_variables
from shared.settings import DECLARED

OWN = {f"{declared.name}{suffix}": "x" for declared in DECLARED.values() for suffix in ("", "_FILE")}


def test_no_setting_of_our_own_is_removed() -> None:
    environment = {**OWN, "WEB_PORT": "1", "FLOWER_PORT": "2", "SIMULATOR_PORT": "3", "PATH": "/bin", "HOME": "/"}
    before = dict(environment)
    assert remove_foreign_variables(environment) == ()
    assert environment == before


@pytest.mark.parametrize(
    "name",
    [
        *("CELERY_BROKER_URL", "BROKER_URL", "CELERY_RESULT_BACKEND", "CELERY_CONFIG_MODULE", "CELERY_LOADER"),
        *("PGHOST", "PGSSLMODE", "PGOPTIONS", "PGSERVICE", "PGPASSFILE", "PGTARGETSESSIONATTRS"),
        *("FLOWER_BASIC_AUTH", "FLOWER_UNAUTHENTICATED_API", "FLASK_DEBUG", "KOMBU_LOG_DEBUG"),
    ],
)
def test_a_variable_of_a_library_is_removed_and_named(name: str) -> None:
    environment = {"PATH": "/bin", name: "x"}
    assert remove_foreign_variables(environment) == (name,)
    assert environment == {"PATH": "/bin"}


def test_a_proxy_that_calls_to_hubspot_do_not_use_is_found() -> None:
    assert find_unused_proxies({"HTTPS_PROXY": "http://proxy", "HTTP_PROXY": "", "NO_PROXY": "*"}) == ["HTTPS_PROXY"]
