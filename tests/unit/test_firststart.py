"""Secrets are made once, kept, and handed to each service alone."""

from __future__ import annotations

import stat
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography.fernet import Fernet

from deploy.init_secrets import EX_CONFIG, FOLDERS, main
from shared.settings import Settings

APP = {"HUBSPOT_CLIENT_ID": "an-app", "HUBSPOT_CLIENT_SECRET": "app-secret", "HUBSPOT_SCOPES": "oauth tickets"}


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    for name in ("kept", *FOLDERS):
        (tmp_path / name).mkdir()
    return tmp_path


def read(secrets: Path, folder: str, name: str) -> str:
    return (secrets / folder / name).read_text().strip()


def everything(secrets: Path) -> dict[str, str]:
    return {str(path.relative_to(secrets)): path.read_text() for path in secrets.rglob("*") if path.is_file()}


def environment(secrets: Path, service: str) -> dict[str, str]:
    """As docker-compose.yml names its files."""
    own = f"{service.upper()}_DATABASE_URL"
    return {
        f"{'DATABASE_URL' if name == own else name}_FILE": str(secrets / service / name) for name in FOLDERS[service]
    }


def test_the_first_start_gives_web_and_worker_all_that_they_need(secrets: Path) -> None:
    assert main({}, secrets) == 0
    web = Settings.from_env(environment(secrets, "web"))
    assert web.hubspot_api_url == "http://simulator:8090"
    assert web.hubspot_app_url == "http://localhost:8090"
    assert web.hubspot_redirect_uri == "http://localhost:5000/oauth/callback"
    worker = Settings.from_env(environment(secrets, "worker"), needs=("DATABASE_URL", "REDIS_URL", "TOKEN_KEYS"))
    assert worker.token_keys == web.token_keys
    assert (worker.secret_key, worker.operator_password) == ("", "")


def test_owner_web_and_worker_have_a_login_each_to_the_same_database(secrets: Path) -> None:
    assert main({}, secrets) == 0
    migrate = Settings.from_env(environment(secrets, "migrate"), needs=("DATABASE_URL",))
    urls = [migrate.database_url, migrate.web_database_url, migrate.worker_database_url]
    parts = [urlsplit(url) for url in urls]
    assert len({each.username for each in parts}) == len({each.password for each in parts}) == 3
    assert {(each.hostname, each.path) for each in parts} == {("postgres", "/tokenkeeper")}
    assert urls[1:] == [
        Settings.from_env(environment(secrets, service), needs=()).database_url for service in ("web", "worker")
    ]
    owner = parts[0].password or ""
    holders = {str(path.parent.name) for path in secrets.rglob("*") if path.is_file() and owner in path.read_text()}
    assert holders == {"kept", "postgres", "migrate"}


def test_a_second_start_changes_nothing(secrets: Path) -> None:
    main({}, secrets)
    before = everything(secrets)
    assert main({}, secrets) == 0
    assert everything(secrets) == before


def test_two_first_starts_make_different_secrets(tmp_path: Path) -> None:
    made = []
    for run in ("one", "two"):
        for name in ("kept", *FOLDERS):
            (tmp_path / run / name).mkdir(parents=True)
        main({}, tmp_path / run)
        made.append({path.read_text() for path in (tmp_path / run / "kept").iterdir()})
    assert not made[0] & made[1]


def test_an_app_in_dot_env_takes_the_place_of_the_simulator_and_keeps_the_keys(secrets: Path) -> None:
    main({}, secrets)
    keys = read(secrets, "web", "TOKEN_KEYS")
    assert main(APP, secrets) == 0
    web = Settings.from_env(environment(secrets, "web"))
    assert web.hubspot_client_id == "an-app"
    assert web.hubspot_api_url == "https://api.hubapi.com"
    assert web.hubspot_app_url == "https://app.hubspot.com"
    assert read(secrets, "web", "TOKEN_KEYS") == keys
    assert not list((secrets / "simulator").iterdir())


def test_the_simulator_comes_back_when_the_app_is_taken_out(secrets: Path) -> None:
    main({}, secrets)
    before = everything(secrets)
    main(APP, secrets)
    main({}, secrets)
    assert everything(secrets) == before


def test_another_port_moves_the_redirect_uri(secrets: Path) -> None:
    main({"WEB_PORT": "8000", "SIMULATOR_PORT": "9000"}, secrets)
    assert read(secrets, "web", "HUBSPOT_REDIRECT_URI") == "http://localhost:8000/oauth/callback"
    assert read(secrets, "web", "HUBSPOT_APP_URL") == "http://localhost:9000"


def test_what_dot_env_gives_wins_while_it_is_there(secrets: Path) -> None:
    main({}, secrets)
    made = read(secrets, "web", "OPERATOR_PASSWORD")
    main({"OPERATOR_PASSWORD": "chosen by a person"}, secrets)
    assert read(secrets, "web", "OPERATOR_PASSWORD") == "chosen by a person"
    assert read(secrets, "flower", "OPERATOR_PASSWORD") == "chosen by a person"
    main({}, secrets)
    assert read(secrets, "web", "OPERATOR_PASSWORD") == made


def test_no_key_that_ever_sealed_is_forgotten(secrets: Path) -> None:
    main({}, secrets)
    first, second = read(secrets, "web", "TOKEN_KEYS"), Fernet.generate_key().decode()
    main({"TOKEN_KEYS": second}, secrets)
    assert read(secrets, "worker", "TOKEN_KEYS") == second
    main({}, secrets)
    assert read(secrets, "worker", "TOKEN_KEYS") == f"{second},{first}"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"HUBSPOT_CLIENT_ID": "an-app"}, "HUBSPOT_CLIENT_SECRET, HUBSPOT_SCOPES"),
        ({"HUBSPOT_CLIENT_SECRET": "hush-hush"}, "HUBSPOT_CLIENT_ID, HUBSPOT_SCOPES"),
        ({"HUBSPOT_API_URL": "http://elsewhere"}, "HUBSPOT_CLIENT_ID"),
        ({**APP, "HUBSPOT_API_VERSION": "v1"}, "HUBSPOT_API_VERSION"),
        ({"TOKEN_KEYS": "hush-hush"}, "TOKEN_KEYS"),
        ({"OPERATOR_PASSWORD": "short"}, "OPERATOR_PASSWORD"),
    ],
)
def test_a_bad_dot_env_is_refused_in_one_line_and_nothing_is_written(
    secrets: Path, capsys: pytest.CaptureFixture[str], given: dict[str, str], said: str
) -> None:
    assert main(given, secrets) == EX_CONFIG
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1
    assert "hush-hush" not in told
    assert everything(secrets) == {}


def test_what_it_prints_holds_no_secret(secrets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(APP, secrets)
    told = capsys.readouterr().out
    for path in (secrets / "kept").iterdir():
        assert path.read_text().strip() not in told
    assert "app-secret" not in told


def test_only_servers_with_a_user_of_their_own_get_files_that_others_can_read(secrets: Path) -> None:
    main({}, secrets)
    modes = {path.parent.name: stat.S_IMODE(path.stat().st_mode) for path in secrets.rglob("*") if path.is_file()}
    assert {name for name, mode in modes.items() if mode != 0o400} == {"postgres", "redis"}
