"""Secrets cannot pass into a log, whoever writes it."""

import json
import logging

import pytest
import structlog

from shared import logs

SECRET = "supersecret-client-secret"


@pytest.fixture(autouse=True)
def _restored():
    root = logging.getLogger()
    before = root.handlers, root.level, logging.raiseExceptions
    yield
    root.handlers, root.level, logging.raiseExceptions = before
    structlog.reset_defaults()


LEAKS = [
    f"the secret is {SECRET}",
    "GET /oauth/callback?code=na1-leak-leak-leak-leak&state=leak HTTP/1.1",
    "Authorization: Bearer leak.leak-leak",
    "connecting to postgresql://keeper:leak@db/keeper",
    "{'refresh_token': 'leak', \"access_token\": \"leak\"}",
    "client_secret=leak&refresh_token=leak",
    "sealed gAAAAABleakleakleakleakleakleakleak==",
    "token na1-1234-leak-leak-leak-leakleakleak".replace("leak", "abcd"),
]


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize("text", LEAKS)
def test_no_library_can_log_a_secret(log_format, text, capsys):
    logs.configure(log_format, "debug", [SECRET])
    logging.getLogger("a.library").warning("%s", text)
    said = capsys.readouterr().err
    assert "[secret]" in said
    assert "leak" not in said
    assert SECRET not in said
    assert "abcd" not in said


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_neither_a_field_nor_a_traceback_can(log_format, capsys):
    logs.configure(log_format, "debug", [SECRET])
    try:
        raise ValueError(f"password={SECRET}")  # noqa: TRY301  the traceback is what is tested
    except ValueError:
        structlog.get_logger("ours").exception("failed", detail={"refresh_token": "leak"}, hub_id=7)
    said = capsys.readouterr().err
    assert "ValueError" in said
    assert SECRET not in said
    assert "leak" not in said


def test_machines_get_one_json_object_a_line(capsys):
    logs.configure("json", "info")
    structlog.get_logger("ours").info("refreshed", hub_id=7, correlation_id="abc")
    line = json.loads(capsys.readouterr().err)
    assert (line["event"], line["hub_id"], line["correlation_id"], line["level"]) == ("refreshed", 7, "abc", "info")


def test_libraries_that_print_what_they_send_stay_silent_at_debug(capsys):
    logs.configure("text", "debug")
    logging.getLogger("urllib3.connectionpool").debug("send: client_secret")
    assert capsys.readouterr().err == ""


def test_a_message_that_cannot_be_formatted_is_not_printed_raw(capsys):
    logs.configure("text", "debug", [SECRET])
    logging.getLogger("a.library").warning("%d", SECRET)
    assert SECRET not in capsys.readouterr().err


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_what_others_wrote_begins_no_line_and_moves_no_cursor(log_format, capsys):
    logs.configure(log_format, "info")
    structlog.get_logger("ours").info("seen", domain="shop\n2026-11-24 [error] forged\x1b[2J\u202e\x9b1A")
    logging.getLogger("a.library").warning("%s", "one\r\ntwo")
    said = capsys.readouterr().err
    assert said.count("\n") == 2
    assert not [character for character in said if not character.isprintable() and character != "\n"]


def test_a_traceback_keeps_its_lines(capsys):
    logs.configure("text", "info")
    try:
        raise ValueError  # noqa: TRY301
    except ValueError:
        structlog.get_logger("ours").exception("failed")
    assert capsys.readouterr().err.count("\n") > 3


def test_the_net_for_handlers_of_others_holds_a_line_and_its_traceback():
    logs.configure("text", "info", [SECRET])
    try:
        raise ValueError(f"password={SECRET}")  # noqa: TRY301
    except ValueError as error:
        said = (type(error), error, error.__traceback__)
    record = logging.LogRecord("gunicorn", logging.ERROR, "", 1, "%s\nforged", (f"code={SECRET}",), said)
    assert logs.RedactingFilter().filter(record)
    line = logging.Formatter().format(record)
    assert SECRET not in line
    assert "ValueError" in line
    assert line.splitlines()[0] == "code=[secret]\\nforged"
