"""Secrets are generated once, stored, and each service gets only its own."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography.fernet import Fernet

from deploy.init_secrets import EX_CONFIG, SERVICE_FILES, main
from shared.domain.identity import DEFAULT_APP
from shared.settings import Settings
from tests.support.environment import ROOT, inherited_environment

APP = {"HUBSPOT_CLIENT_ID": "an-app", "HUBSPOT_CLIENT_SECRET": "app-secret", "HUBSPOT_SCOPES": "oauth tickets"}


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    for name in ("kept", *SERVICE_FILES):
        (tmp_path / name).mkdir()
    return tmp_path


def read_file(secrets: Path, folder: str, name: str) -> str:
    return (secrets / folder / name).read_text().strip()


def read_all(secrets: Path) -> dict[str, str]:
    return {str(path.relative_to(secrets)): path.read_text() for path in secrets.rglob("*") if path.is_file()}


def make_environment(secrets: Path, service: str) -> dict[str, str]:
    """The settings of the service, as docker-compose.yml passes them."""
    own = f"{service.upper()}_DATABASE_URL"
    return {
        f"{'DATABASE_URL' if name == own else name}_FILE": str(secrets / service / name)
        for name in SERVICE_FILES[service]
    }


def test_the_first_start_gives_web_and_worker_all_required_settings(secrets: Path) -> None:
    assert main({}, secrets) == 0
    web = Settings.from_env(make_environment(secrets, "web"))
    assert web.hubspot_api_url == "http://simulator:8090"
    assert web.hubspot_app_url == "http://localhost:8090"
    assert web.apps[DEFAULT_APP].redirect_uri == "http://localhost:5000/oauth/callback"
    worker = Settings.from_env(make_environment(secrets, "worker"), needs=("DATABASE_URL", "REDIS_URL", "TOKEN_KEYS"))
    assert worker.token_keys == web.token_keys
    assert (worker.secret_key, worker.operator_password) == ("", "")


def test_owner_web_and_worker_have_a_login_each_to_the_same_database(secrets: Path) -> None:
    assert main({}, secrets) == 0
    migrate = Settings.from_env(make_environment(secrets, "migrate"), needs=("DATABASE_URL",))
    urls = [migrate.database_url, migrate.web_database_url, migrate.worker_database_url]
    parts = [urlsplit(url) for url in urls]
    assert len({each.username for each in parts}) == len({each.password for each in parts}) == 3
    assert {(each.hostname, each.path) for each in parts} == {("postgres", "/tokenkeeper")}
    assert urls[1:] == [
        Settings.from_env(make_environment(secrets, service), needs=()).database_url for service in ("web", "worker")
    ]
    owner = parts[0].password or ""
    holders = {str(path.parent.name) for path in secrets.rglob("*") if path.is_file() and owner in path.read_text()}
    assert holders == {"kept", "postgres", "migrate"}


def test_a_second_start_changes_nothing(secrets: Path) -> None:
    main({}, secrets)
    before = read_all(secrets)
    assert main({}, secrets) == 0
    assert read_all(secrets) == before


def test_two_first_starts_generate_different_secrets(tmp_path: Path) -> None:
    generated = []
    for run in ("one", "two"):
        for name in ("kept", *SERVICE_FILES):
            (tmp_path / run / name).mkdir(parents=True)
        main({}, tmp_path / run)
        generated.append({path.read_text() for path in (tmp_path / run / "kept").iterdir()})
    assert not generated[0] & generated[1]


def test_an_app_in_dot_env_replaces_the_simulator_and_leaves_the_token_keys(secrets: Path) -> None:
    main({}, secrets)
    keys = read_file(secrets, "web", "TOKEN_KEYS")
    assert main(APP, secrets) == 0
    web = Settings.from_env(make_environment(secrets, "web"))
    assert web.apps[DEFAULT_APP].client_id == "an-app"
    assert web.hubspot_api_url == "https://api.hubapi.com"
    assert web.hubspot_app_url == "https://app.hubspot.com"
    assert read_file(secrets, "web", "TOKEN_KEYS") == keys
    assert not list((secrets / "simulator").iterdir())


def test_a_file_of_apps_replaces_the_simulator_and_reaches_web_and_worker_alone(secrets: Path, tmp_path: Path) -> None:
    file = tmp_path / "apps.toml"
    file.write_text(
        """
        [acme]
        client_id = "acme"
        client_secret = "acme-secret"
        redirect_uri = "https://acme.example/oauth/callback"
        scopes = "oauth"
        """
    )
    assert main({"HUBSPOT_APPS_FILE": str(file)}, secrets) == 0
    for service in ("web", "worker"):
        settings = Settings.from_env(make_environment(secrets, service), needs=("HUBSPOT_CLIENT_ID",))
        assert [app.client_secrets for app in settings.apps.values()] == [("acme-secret",)]
    assert {path.split("/")[0] for path, text in read_all(secrets).items() if "acme-secret" in text} == {
        *("web", "worker", "apps.toml")
    }
    assert not list((secrets / "simulator").iterdir())

    file.write_text("")
    assert main({"HUBSPOT_APPS_FILE": str(file)}, secrets) == 0, "as /dev/null, where .env names no file"
    assert list(Settings.from_env(make_environment(secrets, "web")).apps) == ["default"]


def test_a_file_of_apps_that_is_wrong_is_named_before_anything_is_written(
    secrets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "apps.toml").write_text("[acme]\n")
    assert main({"HUBSPOT_APPS_FILE": str(tmp_path / "apps.toml")}, secrets) == EX_CONFIG
    assert "HUBSPOT_APPS_FILE: [acme] client_id is missing" in capsys.readouterr().err
    assert main({"HUBSPOT_APPS_FILE": str(tmp_path / "missing")}, secrets) == EX_CONFIG
    assert "HUBSPOT_APPS_FILE cannot be read (FileNotFoundError" in capsys.readouterr().err
    assert not list((secrets / "web").iterdir())


def test_the_simulator_comes_back_when_the_app_is_taken_out(secrets: Path) -> None:
    main({}, secrets)
    before = read_all(secrets)
    main(APP, secrets)
    main({}, secrets)
    assert read_all(secrets) == before


def test_another_port_moves_the_redirect_uri(secrets: Path) -> None:
    main({"WEB_PORT": "8000", "SIMULATOR_PORT": "9000"}, secrets)
    assert read_file(secrets, "web", "HUBSPOT_REDIRECT_URI") == "http://localhost:8000/oauth/callback"
    assert read_file(secrets, "web", "HUBSPOT_APP_URL") == "http://localhost:9000"


def test_a_value_in_dot_env_wins_while_it_is_there(secrets: Path) -> None:
    main({}, secrets)
    generated = read_file(secrets, "web", "OPERATOR_PASSWORD")
    main({"OPERATOR_PASSWORD": "chosen by a person"}, secrets)
    assert read_file(secrets, "web", "OPERATOR_PASSWORD") == "chosen by a person"
    assert read_file(secrets, "flower", "OPERATOR_PASSWORD") == "chosen by a person"
    main({}, secrets)
    assert read_file(secrets, "web", "OPERATOR_PASSWORD") == generated


def test_every_token_key_that_was_ever_used_stays(secrets: Path) -> None:
    main({}, secrets)
    first, second = read_file(secrets, "web", "TOKEN_KEYS"), Fernet.generate_key().decode()
    main({"TOKEN_KEYS": second}, secrets)
    assert read_file(secrets, "worker", "TOKEN_KEYS") == second
    main({}, secrets)
    assert read_file(secrets, "worker", "TOKEN_KEYS") == f"{second},{first}"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"HUBSPOT_CLIENT_ID": "an-app"}, "HUBSPOT_CLIENT_SECRET, HUBSPOT_SCOPES"),
        ({"HUBSPOT_CLIENT_SECRET": "hush-hush"}, "HUBSPOT_CLIENT_ID, HUBSPOT_SCOPES"),
        ({"HUBSPOT_API_URL": "http://elsewhere"}, "HUBSPOT_CLIENT_ID"),
        ({**APP, "HUBSPOT_API_VERSION": "v1"}, "HUBSPOT_API_VERSION"),
        ({"TOKEN_KEYS": "hush-hush"}, "TOKEN_KEYS"),
        ({"OPERATOR_PASSWORD": "short"}, "OPERATOR_PASSWORD"),
    ],
)
def test_an_invalid_dot_env_is_refused_in_one_line_and_nothing_is_written(
    secrets: Path, capsys: pytest.CaptureFixture[str], given: dict[str, str], message: str
) -> None:
    assert main(given, secrets) == EX_CONFIG
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1
    assert "hush-hush" not in errors
    assert read_all(secrets) == {}


def test_the_output_contains_no_secret(secrets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(APP, secrets)
    output = capsys.readouterr().out
    for path in (secrets / "kept").iterdir():
        assert path.read_text().strip() not in output
    assert "app-secret" not in output


def test_only_postgres_and_redis_get_files_that_other_users_can_read(secrets: Path) -> None:
    main({}, secrets)
    modes = {path.parent.name: stat.S_IMODE(path.stat().st_mode) for path in secrets.rglob("*") if path.is_file()}
    assert {name for name, mode in modes.items() if mode != 0o400} == {"postgres", "redis"}


def test_the_module_is_a_script_that_exits_with_the_status_of_a_configuration_error() -> None:
    """As the service `init` of docker-compose.yml runs it. The settings are incomplete, so that it writes nothing."""
    run = subprocess.run(
        [sys.executable, "-m", "deploy.init_secrets"],
        cwd=ROOT,
        env={**inherited_environment(), "HUBSPOT_CLIENT_ID": "an-app"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stdout) == (EX_CONFIG, "")
    assert run.stderr.startswith("tokenkeeper: .env gives HUBSPOT_CLIENT_ID, but not HUBSPOT_CLIENT_SECRET")
