"""Reads our HubSpot apps from the settings: several from HUBSPOT_APPS_FILE, or one from variables.

In the file each app is a table whose name is the app's, with the keys of KEYS.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from shared.domain.identity import APP_NAME, DEFAULT_APP
from shared.settings.declaration import (
    BadSetting,
    Setting,
    find_text,
    list_declared,
    parse_setting,
    read_setting,
    read_text_file,
)
from shared.settings.hubspot_app import HubSpotApp

FILE_VARIABLE = "HUBSPOT_APPS_FILE"
#: Field's name to variable, of what describes one app.
APP_VARIABLES = list_declared(HubSpotApp)
#: Where an app's table has none of these, the variable counts.
SHARED_FIELDS = ("api_version", "max_refreshes_per_second", "marketplace_sign_in_url")
#: The variables that the file replaces.
REPLACED_VARIABLES = tuple(each.name for name, each in APP_VARIABLES.items() if name not in SHARED_FIELDS)
#: Key of an app's table to the field of HubSpotApp.
KEYS = {
    "client_id": "client_id",
    "client_secret": "client_secrets",
    "client_secret_file": "client_secrets",
    "redirect_uri": "redirect_uri",
    "scopes": "scopes",
    "optional_scopes": "optional_scopes",
    "conditional_scopes": "conditional_scopes",
    "user_level": "is_user_level",
    "api_version": "api_version",
    "max_refreshes_per_second": "max_refreshes_per_second",
    "marketplace_sign_in_url": "marketplace_sign_in_url",
}
#: Of these a value may be a list of texts.
SEPARATORS = {
    "client_secret": ",",
    "scopes": " ",
    "optional_scopes": " ",
    "conditional_scopes": " ",
}
NAME_HINT = "a name has small letters, digits and _, begins with a letter, and has at most 32"
#: A name or key that can be shown: a value by mistake in its place does not look like one.
_SHOWABLE = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}")
#: Of tomllib's messages the place alone, because the rest may quote the file.
_TOML_PLACE = re.compile(r"at (?:line \d+, column \d+|end of document)")


def read_apps(path: str, environ: Mapping[str, str], needs: Collection[str]) -> tuple[dict[str, HubSpotApp], list[str]]:
    """The apps by name, and every problem in words. `path` is that of the file; "" where variables describe one app.

    `needs` are the names of the variables that must be set: with a file, its apps need the corresponding keys.
    """
    problems: list[str] = []
    shared_values = _read_variables(SHARED_FIELDS, environ, needs, problems)
    try:
        text = read_text_file(Path(path), FILE_VARIABLE, "a TOML file with a table for each app") if path else ""
    except BadSetting as error:
        return {}, [*problems, str(error)]
    given = [name for name in REPLACED_VARIABLES if _is_set(name, environ)]
    if not text:
        own_fields = [name for name in APP_VARIABLES if name not in SHARED_FIELDS]
        values = _read_variables(own_fields, environ, needs, problems)
        is_described = bool(given) or any(_is_set(APP_VARIABLES[field].name, environ) for field in SHARED_FIELDS)
        return ({DEFAULT_APP: HubSpotApp(DEFAULT_APP, **shared_values, **values)} if is_described else {}), problems
    if given:
        problems.append(f"{FILE_VARIABLE} and {', '.join(given)} are both set: keep the file or the variables")
        return {}, problems
    apps, file_problems = _parse_file(text, Path(path).parent, needs, shared_values)
    return apps, problems + [f"{FILE_VARIABLE}{text}" for text in file_problems]


def is_empty_file(path: str) -> bool:
    """Such a file counts as none, as an empty value does. False where it cannot be read: read_apps says why."""
    try:
        return bool(path) and not read_text_file(Path(path), FILE_VARIABLE, "")
    except BadSetting:
        return False


def _parse_file(
    text: str, folder: Path, needs: Collection[str], shared_values: Mapping[str, Any]
) -> tuple[dict[str, HubSpotApp], list[str]]:
    """The problems are texts that follow the name of the file's variable."""
    try:
        tables = _parse_tables(text)
    except BadSetting as error:
        return {}, [str(error)]
    apps: dict[str, HubSpotApp] = {}
    problems = []
    for name, table in tables.items():
        table_problems, app = _read_table(name, table, folder, needs, shared_values)
        problems += table_problems
        if app is not None:
            apps[name] = app
    return apps, [f": {problem}" for problem in (*problems, *_compare_apps(apps))]


def _is_set(name: str, environ: Mapping[str, str]) -> bool:
    try:
        return bool(find_text(name, environ))
    except BadSetting:
        return True


def _read_variables(
    fields: Collection[str], environ: Mapping[str, str], needs: Collection[str], problems: list[str]
) -> dict[str, Any]:
    values = {}
    for field in fields:
        declared = APP_VARIABLES[field]
        try:
            values[field] = read_setting(declared, environ, is_needed=declared.name in needs)
        except BadSetting as error:
            problems.append(str(error))
    return values


def _parse_tables(text: str) -> dict[str, Any]:
    """Raises BadSetting."""
    try:
        tables = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        place = _TOML_PLACE.search(str(error))
        where = f" {place[0]}" if place else ""
        raise BadSetting(f' is not TOML{where} (as in: [acme] and below it client_id = "…")') from None
    if not tables:
        raise BadSetting(" describes no app (a table for each: [acme])")
    return tables


def _read_table(
    name: str, table: object, folder: Path, needs: Collection[str], shared_values: Mapping[str, Any]
) -> tuple[list[str], HubSpotApp | None]:
    """What is wrong with it, and the app where nothing is."""
    if not isinstance(table, dict):
        return [f"{_show(name)} is outside of a table: write [{DEFAULT_APP}], or another app's name, above it"], None
    if not APP_NAME.fullmatch(name):
        return [f"[{_show(name)}] is no name of an app ({NAME_HINT})"], None
    problems = list(_find_unknown_keys(name, table))
    values = dict(shared_values)
    for key in KEYS.keys() & table.keys():
        try:
            values[KEYS[key]] = _read_value(f"[{name}] {key}", key, table[key], folder)
        except BadSetting as error:
            problems.append(str(error))
    problems += _find_missing_keys(name, table, needs)
    return sorted(problems), None if problems else HubSpotApp(name, **values)


def _find_unknown_keys(name: str, table: Mapping[str, object]) -> Iterator[str]:
    for key in table:
        if key in KEYS:
            continue
        if isinstance(table[key], dict):
            yield f"[{name}] has a table in it: write an app's own as [{_show(key)}], without a dot"
            continue
        nearest = get_close_matches(key, KEYS, n=1, cutoff=0.0)[0]
        yield f"[{name}] {_show(key)} is no key of an app (did you mean {nearest}?)"


def _find_missing_keys(name: str, table: Mapping[str, object], needs: Collection[str]) -> Iterator[str]:
    if "client_secret" in table and "client_secret_file" in table:
        yield f"[{name}] client_secret and client_secret_file are both there: keep one"
    present = {KEYS[key] for key in table if key in KEYS}
    for field, declared in APP_VARIABLES.items():
        if declared.name in needs and field not in SHARED_FIELDS and field not in present:
            key = next(key for key in KEYS if KEYS[key] == field)
            yield f"[{name}] {key} is missing ({declared.hint})"


def _read_value(name: str, key: str, value: object, folder: Path) -> Any:
    """Raises BadSetting, which calls the value `name`."""
    if key == "user_level":
        if not isinstance(value, bool):
            raise BadSetting(f"{name} is malformed (true or false)")
        return value
    declared = APP_VARIABLES[KEYS[key]]
    if key == "client_secret_file":
        path = _to_text(name, declared, value, None)
        text = read_text_file(folder / path, name, "a file that holds the client secret")
    elif key == "max_refreshes_per_second":
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise BadSetting(f"{name} is malformed ({declared.hint})")
        text = str(value)
    else:
        text = _to_text(name, declared, value, SEPARATORS.get(key))
    if not text and key not in ("optional_scopes", "conditional_scopes", "marketplace_sign_in_url"):
        raise BadSetting(f"{name} is empty ({declared.hint})")
    return parse_setting(declared, name, text) if text else declared.default


def _to_text(name: str, declared: Setting, value: object, separator: str | None) -> str:
    """As in a variable. Raises BadSetting."""
    items = value if isinstance(value, list) and separator is not None else [value]
    if not all(isinstance(item, str) for item in items):
        forms = "a text" if separator is None else "a text, or a list of texts"
        raise BadSetting(f"{name} is malformed: write {forms} ({declared.hint})")
    return (separator or "").join(str(item).strip() for item in items)


def _compare_apps(apps: Mapping[str, HubSpotApp]) -> Iterator[str]:
    """What several apps of one installation must have in common, and what not."""

    def disagree(describe: Callable[[HubSpotApp], object]) -> bool:
        return len({describe(app) for app in apps.values() if app.redirect_uri}) > 1

    if disagree(lambda app: app.path_prefix):
        yield "the apps differ in the path of redirect_uri before /oauth/callback: one installation is served below one"
    if disagree(lambda app: app.is_https):
        yield "some apps have a redirect_uri with https and some with http: an installation is served by one of them"
    counts = Counter(app.client_id for app in apps.values() if app.client_id)
    for client_id in [each for each, count in counts.items() if count > 1]:
        names = [name for name, app in apps.items() if app.client_id == client_id]
        yield f"{', '.join(names)} have the same client_id: an app of HubSpot is one table"


def _show(key: str) -> str:
    return key if _SHOWABLE.fullmatch(key) else "a key"
