"""`tokenkeeper app`: the files that define a HubSpot app, from the settings and against them."""

import copy
import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from cli.main import main
from shared.hubspot.app_definition import API_VERSION_ENDS, Finding, check_api_version, check_scopes
from shared.settings.hubspot_app import HubSpotApp
from shared.settings.parsers import API_VERSIONS

Output = pytest.CaptureFixture[str]
REDIRECT_URI = "https://connect.example.com/oauth/callback"
DEFINITION = {
    "uid": "acme",
    "type": "app",
    "config": {
        "name": "Acme",
        "description": "Connects accounts.",
        "distribution": "marketplace",
        "auth": {
            "type": "oauth",
            "redirectUrls": [REDIRECT_URI, "http://localhost:5000/oauth/callback"],
            "requiredScopes": ["oauth", "crm.objects.contacts.read"],
            "optionalScopes": ["crm.objects.deals.read"],
            "conditionallyRequiredScopes": [],
        },
    },
}


def run(*arguments: str) -> int:
    """The exit status."""
    with pytest.raises(SystemExit) as error:
        main(arguments)
    return int(error.value.code or 0)


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "HUBSPOT_CLIENT_ID": "0b1c2d3e-0000-4000-8000-000000000001",
        "HUBSPOT_CLIENT_SECRET": "never-shown",
        "HUBSPOT_REDIRECT_URI": REDIRECT_URI,
        "HUBSPOT_SCOPES": "oauth crm.objects.contacts.read",
        "HUBSPOT_OPTIONAL_SCOPES": "crm.objects.deals.read",
    }.items():
        monkeypatch.setenv(name, value)


def test_init_writes_a_project_that_check_agrees_with(tmp_path: Path, capsys: Output) -> None:
    directory = tmp_path / "app"
    assert run("app", "init", str(directory), "--name", "Acme Ltd") == 0
    output = capsys.readouterr().out
    assert json.loads((directory / "hsproject.json").read_text()) == {
        "name": "Acme Ltd",
        "srcDir": "src",
        "platformVersion": "2026.09",
    }
    definition = json.loads((directory / "src/app/app-hsmeta.json").read_text())
    assert (definition["uid"], definition["type"]) == ("acme_ltd", "app")
    assert definition["config"]["auth"] == {
        "type": "oauth",
        "redirectUrls": [REDIRECT_URI],
        "requiredScopes": ["oauth", "crm.objects.contacts.read"],
        "optionalScopes": ["crm.objects.deals.read"],
        "conditionallyRequiredScopes": [],
    }
    assert "never-shown" not in output + json.dumps(definition)
    assert "hs project upload" in output
    assert run("app", "check", str(directory / "src/app/app-hsmeta.json")) == 0
    assert capsys.readouterr().out.endswith("and the settings agree\n")


def test_init_never_overwrites_a_file(tmp_path: Path, capsys: Output) -> None:
    (tmp_path / "src/app").mkdir(parents=True)
    (tmp_path / "src/app/app-hsmeta.json").write_text("mine")
    assert run("app", "init", str(tmp_path)) == 1
    assert "exists already, so nothing was written" in capsys.readouterr().err
    assert (tmp_path / "src/app/app-hsmeta.json").read_text() == "mine"
    assert not (tmp_path / "hsproject.json").exists()


def test_init_says_why_it_cannot_write(tmp_path: Path, capsys: Output) -> None:
    (tmp_path / "src").write_text("a file where a folder should be")
    assert run("app", "init", str(tmp_path)) == 1
    assert capsys.readouterr().err.startswith("tokenkeeper: cannot write ")


def change_auth(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda definition: definition["config"]["auth"].update(changes)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (change_auth(redirectUrls=[REDIRECT_URI + "/"]), f"redirectUrls lacks {REDIRECT_URI}"),
        (change_auth(redirectUrls=[REDIRECT_URI, "http://a.example/oauth/callback"]), "HubSpot takes https, and http"),
        (change_auth(requiredScopes=["oauth"]), "requiredScopes lacks crm.objects.contacts.read, which the scopes of"),
        (change_auth(requiredScopes=["crm.objects.contacts.read"]), "requiredScopes lacks oauth: account information"),
        (change_auth(optionalScopes=[]), "optionalScopes lacks crm.objects.deals.read"),
        (change_auth(optionalScopes=["crm.objects.deals.read", "files"]), "optionalScopes has files, which"),
        (change_auth(conditionallyRequiredScopes=["files"]), "conditionallyRequiredScopes has files, which"),
        (change_auth(optionalScopes=["oauth", "crm.objects.deals.read"]), "oauth is in requiredScopes and in optional"),
        (change_auth(requiredScopes=["oauth,crm.objects.contacts.read"]), "without commas and spaces"),
        (change_auth(requiredScopes=["oauth", "crm.objects.contacts.read", "contacts"]), "contacts is a scope that"),
        (change_auth(type="static"), 'config.auth.type is not "oauth"'),
        (lambda definition: definition["config"].update(isUserLevel=True), 'the file has "isUserLevel": true'),
        (lambda definition: definition.pop("config"), "the file has no config.auth"),
    ],
)
def test_check_names_each_difference(
    change: Callable[[dict[str, Any]], None], expected: str, tmp_path: Path, capsys: Output
) -> None:
    definition = copy.deepcopy(DEFINITION)
    change(definition)
    file = tmp_path / "app-hsmeta.json"
    file.write_text(json.dumps(definition))
    assert run("app", "check", str(file)) == 1
    output = capsys.readouterr()
    assert any(line.startswith("difference: ") and expected in line for line in output.out.splitlines()), output.out
    assert output.err.count("\n") == 1


def test_check_agrees_with_another_order_and_a_byte_order_mark(tmp_path: Path, capsys: Output) -> None:
    definition = copy.deepcopy(DEFINITION)
    change_auth(requiredScopes=["crm.objects.contacts.read", "oauth", "oauth"])(definition)
    file = tmp_path / "app-hsmeta.json"
    file.write_text("\ufeff" + json.dumps(definition), encoding="utf-8")
    assert run("app", "check", str(file)) == 0
    assert capsys.readouterr().out == f"{file} and the settings agree\n"


def test_a_coarse_scope_is_a_note_and_no_difference(
    tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUBSPOT_SCOPES", "oauth hubdb")
    definition = copy.deepcopy(DEFINITION)
    change_auth(requiredScopes=["oauth", "hubdb"])(definition)
    file = tmp_path / "app-hsmeta.json"
    file.write_text(json.dumps(definition))
    assert run("app", "check", str(file)) == 0
    assert "note: HubSpot replaces hubdb by hubdb.tables.read" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"{", "is not JSON: line 1, column 2"),
        (b"\xff\xfe", "is not JSON in UTF-8"),
        (b"[" * 100_000, "is not JSON"),
        (b" " * (1024 * 1024 + 1), "is too large"),
        (b"[]", "1 difference between"),
    ],
)
def test_a_file_that_is_no_definition_is_one_clear_line(
    content: bytes, expected: str, tmp_path: Path, capsys: Output
) -> None:
    file = tmp_path / "app-hsmeta.json"
    file.write_bytes(content)
    assert run("app", "check", str(file)) == 1
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1


def test_a_file_that_cannot_be_read_is_one_clear_line(capsys: Output) -> None:
    assert run("app", "check", "/proc/self/mem") == 1
    assert capsys.readouterr().err.startswith("tokenkeeper: cannot read /proc/self/mem: ")


def test_list_shows_the_app_without_its_secret(capsys: Output) -> None:
    assert run("app", "list") == 0
    text = capsys.readouterr().out
    assert run("app", "list", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "app": "default",
        "client_id": "0b1c2d3e-0000-4000-8000-000000000001",
        "redirect_uri": REDIRECT_URI,
        "api_version": "2026-09",
        "user_level": False,
        "scopes": ["oauth", "crm.objects.contacts.read"],
        "optional_scopes": ["crm.objects.deals.read"],
        "conditional_scopes": [],
        "max_refreshes_per_second": 0.0,
        "marketplace_sign_in_url": "",
    }
    assert "client_id                0b1c2d3e" in text
    assert "never-shown" not in text


def test_with_several_apps_init_and_check_ask_for_one_by_name(
    tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CLIENT_ID", "CLIENT_SECRET", "REDIRECT_URI", "SCOPES", "OPTIONAL_SCOPES"):
        monkeypatch.delenv(f"HUBSPOT_{name}")
    file = tmp_path / "apps.toml"
    file.write_text(
        f"""
        [acme]
        client_id = "0b1c2d3e-0000-4000-8000-000000000001"
        redirect_uri = "{REDIRECT_URI}"
        scopes = "oauth"
        [for_users]
        client_id = "0b1c2d3e-0000-4000-8000-000000000002"
        redirect_uri = "{REDIRECT_URI}"
        scopes = "oauth tickets"
        conditional_scopes = "files"
        user_level = true
        """
    )
    monkeypatch.setenv("HUBSPOT_APPS_FILE", str(file))
    assert run("app", "list") == 0
    assert capsys.readouterr().out.count("\n\n") == 1, "a line between two apps"
    assert run("app", "init", str(tmp_path / "app")) == 2
    assert "the settings describe several apps: add --app with one of acme, for_users" in capsys.readouterr().err
    assert run("app", "init", str(tmp_path / "app"), "--app", "for_user") == 2
    assert "the settings describe no app 'for_user'" in capsys.readouterr().err

    assert run("app", "init", str(tmp_path / "app"), "--app", "for_users") == 0
    definition = tmp_path / "app/src/app/app-hsmeta.json"
    config = json.loads(definition.read_text())["config"]
    assert config["isUserLevel"] is True
    assert config["auth"]["conditionallyRequiredScopes"] == ["files"]
    assert run("app", "check", str(definition), "--app", "for_users") == 0
    assert run("app", "check", str(definition), "--app", "acme") == 1
    assert 'the file has "isUserLevel": true' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("version", "today", "is_warning", "text"),
    [
        ("2026-09", date(2026, 11, 27), False, "2026-09, which HubSpot supports until March 2028"),
        ("2026-09", date(2027, 11, 27), True, "HubSpot's support of 2026-09 ends in March 2028: upgrade tokenkeeper"),
        ("v3", date(2027, 5, 1), True, "HubSpot's support of v3 ends in September 2027: use 2026-09"),
        ("2026-03", date(2027, 9, 1), True, "HubSpot's support of 2026-03 ended in September 2027: use 2026-09"),
    ],
)
def test_a_version_is_warned_of_half_a_year_before_its_end(
    version: str, today: date, is_warning: bool, text: str
) -> None:
    assert check_api_version(version, today) == Finding(text, is_difference=is_warning)


def test_every_version_that_the_settings_take_has_an_end() -> None:
    assert set(API_VERSION_ENDS) == set(API_VERSIONS)


def test_scopes_that_fail_at_each_install_are_found_without_the_apps_file() -> None:
    app = HubSpotApp("default", scopes=("contacts", "tickets"), conditional_scopes=("tickets",))
    assert [finding.text.split(" by ")[0].split(":")[0] for finding in check_scopes(app)] == [
        "oauth is not among the scopes",
        "contacts is a scope that HubSpot has ended",
        "HubSpot replaces tickets",
        "tickets is in two of the lists of scopes",
    ]
    assert list(check_scopes(HubSpotApp("default", scopes=("oauth", "crm.objects.contacts.read")))) == []
