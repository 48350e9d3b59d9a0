"""`tokenkeeper app`: HubSpot's files that define an app, made from the settings and compared with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from cli.context import app_option, choose_app, load_settings
from cli.output import json_option, make_epilog, to_json_line
from shared.hubspot.app_definition import compare_app_definition, make_app_definition, make_project
from shared.settings.hubspot_app import HubSpotApp

LIST_NEEDS = ("HUBSPOT_CLIENT_ID", "HUBSPOT_REDIRECT_URI", "HUBSPOT_SCOPES")
FILE_NEEDS = ("HUBSPOT_REDIRECT_URI", "HUBSPOT_SCOPES")
#: HubSpot takes an app's definition from this path below the project's srcDir.
DEFINITION_PATH = Path("src/app/app-hsmeta.json")
PROJECT_PATH = Path("hsproject.json")
#: Of the file given to `app check`.
MAX_FILE_BYTES = 1024 * 1024
NEXT_STEPS = "then run there: hs project upload"


@click.group("app", epilog=make_epilog("tokenkeeper app init hubspot-app"))
def app() -> None:
    """Define the HubSpot app that the settings describe."""


@app.command("list", epilog=make_epilog("tokenkeeper app list", needs=LIST_NEEDS))
@json_option
def list_apps(as_json: bool) -> None:
    """List the apps in the settings, without their secrets."""
    for number, hubspot_app in enumerate(load_settings(*LIST_NEEDS).apps.values()):
        described = _describe(hubspot_app)
        if as_json:
            click.echo(to_json_line(described))
            continue
        if number:
            click.echo()
        for name, value in described.items():
            click.echo(f"{name:24} {_to_text(value)}".rstrip())


@app.command(
    "init",
    epilog=make_epilog(
        "tokenkeeper app init hubspot-app", "cd hubspot-app && hs account auth && hs project upload", needs=FILE_NEEDS
    ),
)
@click.argument("directory", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@app_option
@click.option("--name", help="The app's name, which customers see. Default: the host of HUBSPOT_REDIRECT_URI.")
@click.option("--description", help="What the app does, in one sentence, which customers see.")
@click.option(
    "--distribution",
    type=click.Choice(["marketplace", "private"]),
    default="marketplace",
    show_default=True,
    help="private: for at most ten accounts that you allow. A later change uninstalls the app everywhere.",
)
def write_app_definition(
    directory: Path, app_name: str | None, name: str | None, description: str | None, distribution: str
) -> None:
    """Write hsproject.json and src/app/app-hsmeta.json into DIR, ready for HubSpot's own `hs project upload`.

    Client id and secret are not in them: HubSpot makes both at the first upload, and shows them on the app's tab Auth.
    Existing files are never overwritten.
    """
    hubspot_app = choose_app(load_settings(*FILE_NEEDS), app_name)
    name = name or urlsplit(hubspot_app.redirect_uri).hostname or "app"
    description = description or f"Connects HubSpot accounts to {name}."
    definition = make_app_definition(hubspot_app, name=name, description=description, distribution=distribution)
    files = {PROJECT_PATH: make_project(name, hubspot_app.api_version), DEFINITION_PATH: definition}
    if existing := [str(directory / path) for path in files if (directory / path).exists()]:
        raise click.ClickException(f"exists already, so nothing was written: {', '.join(existing)}")
    try:
        for path, content in files.items():
            _write_json(directory / path, content)
    except OSError as error:
        raise click.ClickException(f"cannot write {error.filename}: {error.strerror}") from None
    click.echo(f"wrote {PROJECT_PATH} and {DEFINITION_PATH} into {directory}; {NEXT_STEPS}")


@app.command("check", epilog=make_epilog("tokenkeeper app check hubspot-app/src/app/app-hsmeta.json", needs=FILE_NEEDS))
@click.argument("file", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@app_option
def check_app_definition(file: Path, app_name: str | None) -> None:
    """Compare an app-hsmeta.json with the settings: redirect URL, scopes of each kind, user level.

    HubSpot blocks an install where they differ. Exit status 1 where they do.
    """
    hubspot_app = choose_app(load_settings(*FILE_NEEDS), app_name)
    findings = compare_app_definition(_read_json(file), hubspot_app)
    for finding in findings:
        click.echo(f"{'difference' if finding.is_difference else 'note'}: {finding.text}")
    differences = sum(finding.is_difference for finding in findings)
    if differences:
        raise click.ClickException(f"{differences} difference{'s' * (differences > 1)} between {file} and the settings")
    click.echo(f"{file} and the settings agree")


def _describe(hubspot_app: HubSpotApp) -> dict[str, Any]:
    """By the keys of HUBSPOT_APPS_FILE."""
    return {
        "app": hubspot_app.name,
        "client_id": hubspot_app.client_id,
        "redirect_uri": hubspot_app.redirect_uri,
        "api_version": hubspot_app.api_version,
        "user_level": hubspot_app.is_user_level,
        "scopes": list(hubspot_app.scopes),
        "optional_scopes": list(hubspot_app.optional_scopes),
        "conditional_scopes": list(hubspot_app.conditional_scopes),
        "max_refreshes_per_second": hubspot_app.max_refreshes_per_second,
        "marketplace_sign_in_url": hubspot_app.marketplace_sign_in_url,
    }


def _to_text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}" if value else "no cap"
    return " ".join(value) if isinstance(value, list) else str(value)


def _read_json(file: Path) -> Any:
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise click.ClickException(f"{file} is too large for an app-hsmeta.json")
        return json.loads(content.decode("utf-8-sig"))
    except OSError as error:
        raise click.ClickException(f"cannot read {file}: {error.strerror}") from None
    except json.JSONDecodeError as error:
        raise click.ClickException(f"{file} is not JSON: line {error.lineno}, column {error.colno}") from None
    except (UnicodeDecodeError, RecursionError):
        raise click.ClickException(f"{file} is not JSON in UTF-8") from None


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("x", encoding="utf-8") as opened:
        opened.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
