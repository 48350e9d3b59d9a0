"""`tokenkeeper link`: the link that it prints is accepted, and one that would not be is refused at once."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from cli.main import main
from shared.connect_links import ConnectLinks

Output = pytest.CaptureFixture[str]
KEY = "a-key-of-32-random-characters-or-more"
ORIGIN = "https://app.example.com"


def run(*arguments: str) -> int:
    """The exit status."""
    with pytest.raises(SystemExit) as error:
        main(("link", *arguments))
    return int(error.value.code or 0)


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "CONNECT_LINK_KEYS": f"{KEY},{'o' * 32}",
        "RETURN_TO_ORIGINS": ORIGIN,
        "HUBSPOT_REDIRECT_URI": "https://connect.example.com/hub/oauth/callback",
        "HUBSPOT_CONDITIONAL_SCOPES": "e-commerce",
    }.items():
        monkeypatch.setenv(name, value)


def test_the_link_carries_every_option_and_begins_with_the_sites_address(capsys: Output) -> None:
    options = ["--customer=acme", "--name=Acme Ltd", f"--return-to={ORIGIN}/done", "--hub-id=62515", "--app=default"]
    assert run(*options, "--scope=e-commerce", "--expires=2h", "--move", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    prefix, _, token = printed["link"].rpartition("/")
    assert prefix == "https://connect.example.com/hub/connect"
    link = ConnectLinks([KEY], [ORIGIN]).read(token, lambda: datetime.now(UTC))
    assert (link.claim.customer, link.name, link.return_to) == ("acme", "Acme Ltd", f"{ORIGIN}/done")
    assert (link.claim.hub_id, link.claim.may_move, link.app, link.scopes) == (62515, True, "default", ("e-commerce",))
    assert (link.claim.link_id, printed["customer"], printed["app"]) == (printed["jti"], "acme", "default")
    assert timedelta(minutes=119) < link.claim.link_expires_at - datetime.now(UTC) <= timedelta(minutes=120, seconds=1)


def test_without_options_the_link_alone_is_printed_and_lives_for_thirty_minutes(capsys: Output) -> None:
    assert run("--customer", "acme") == 0
    output = capsys.readouterr()
    link = ConnectLinks([KEY], []).read(output.out.strip().rpartition("/")[2], lambda: datetime.now(UTC))
    assert link.claim.link_expires_at - datetime.now(UTC) <= timedelta(minutes=30, seconds=1)
    assert output.err.startswith("valid once, until ")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ((), "--customer"),
        (("--customer", ""), "customer: it must have 1 to 200 characters"),
        (("--customer", "a\nb"), "customer: it must have no control characters"),
        (("--customer", "acme", "--return-to", "https://evil.example/"), "return_to: its origin is not in"),
        (("--customer", "acme", "--expires", "8d"), "exp: it must be at most 7 days ahead"),
        (("--customer", "acme", "--expires", "soon"), "is no duration such as"),
        (("--customer", "acme", "--hub-id", "0"), "is not a HubSpot account number"),
        (("--customer", "acme", "--scope", "tickets"), "scopes: they must be conditional or optional ones"),
        (("--customer", "acme", "--app", "other"), "app: the settings describe no such app"),
    ],
)
def test_a_link_that_would_be_refused_is_not_made(options: tuple[str, ...], why: str, capsys: Output) -> None:
    assert run(*options) == 2
    output = capsys.readouterr()
    assert why in output.err
    assert output.out == ""


def test_without_a_key_the_command_says_which_setting_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.delenv("CONNECT_LINK_KEYS")
    assert run("--customer", "acme") == 1
    assert "CONNECT_LINK_KEYS is missing" in capsys.readouterr().err
