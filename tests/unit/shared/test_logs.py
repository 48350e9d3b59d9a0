"""No log line contains a secret, whether we or a library write it."""

import json
import logging

import pytest
import structlog

from shared import logs

SECRET = "supersecret-client-secret"


@pytest.fixture(autouse=True)
def restore_logging():
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
    "ciphertext gAAAAABleakleakleakleakleakleakleak==",
    "token na1-1234-leak-leak-leak-leakleakleak".replace("leak", "abcd"),
]


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize("text", LEAKS)
def test_no_library_can_log_a_secret(log_format, text, capsys):
    logs.configure(log_format, "debug", [SECRET])
    logging.getLogger("a.library").warning("%s", text)
    output = capsys.readouterr().err
    assert "[secret]" in output
    assert "leak" not in output
    assert SECRET not in output
    assert "abcd" not in output


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_neither_a_field_nor_a_traceback_can_log_a_secret(log_format, capsys):
    logs.configure(log_format, "debug", [SECRET])
    try:
        raise ValueError(f"password={SECRET}")  # noqa: TRY301  the traceback is what is tested
    except ValueError:
        structlog.get_logger("own").exception("failed", detail={"refresh_token": "leak"}, hub_id=7)
    output = capsys.readouterr().err
    assert "ValueError" in output
    assert SECRET not in output
    assert "leak" not in output


def test_the_json_format_is_one_object_a_line(capsys):
    logs.configure("json", "info")
    structlog.get_logger("own").info("refreshed", hub_id=7, correlation_id="abc")
    line = json.loads(capsys.readouterr().err)
    assert (line["event"], line["hub_id"], line["correlation_id"], line["level"]) == ("refreshed", 7, "abc", "info")


def test_libraries_that_log_what_they_send_are_silent_at_debug(capsys):
    logs.configure("text", "debug")
    logging.getLogger("urllib3.connectionpool").debug("send: client_secret")
    assert capsys.readouterr().err == ""


def test_a_message_that_cannot_be_formatted_is_not_printed(capsys):
    logs.configure("text", "debug", [SECRET])
    logging.getLogger("a.library").warning("%d", SECRET)
    assert SECRET not in capsys.readouterr().err


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_text_from_outside_begins_no_line_and_moves_no_cursor(log_format, capsys):
    logs.configure(log_format, "info")
    structlog.get_logger("own").info("seen", domain="shop\n2026-11-24 [error] forged\x1b[2J\u202e\x9b1A")
    logging.getLogger("a.library").warning("%s", "one\r\ntwo")
    output = capsys.readouterr().err
    assert output.count("\n") == 2
    assert not [character for character in output if not character.isprintable() and character != "\n"]


def test_a_traceback_keeps_its_lines(capsys):
    logs.configure("text", "info")
    try:
        raise ValueError  # noqa: TRY301
    except ValueError:
        structlog.get_logger("own").exception("failed")
    assert capsys.readouterr().err.count("\n") > 3


def test_the_filter_redacts_a_message_and_its_traceback():
    logs.configure("text", "info", [SECRET])
    try:
        raise ValueError(f"password={SECRET}")  # noqa: TRY301
    except ValueError as error:
        exc_info = (type(error), error, error.__traceback__)
    record = logging.LogRecord("gunicorn", logging.ERROR, "", 1, "%s\nforged", (f"code={SECRET}",), exc_info)
    assert logs.RedactingFilter().filter(record)
    line = logging.Formatter().format(record)
    assert SECRET not in line
    assert "ValueError" in line
    assert line.splitlines()[0] == "code=[secret]\\nforged"
