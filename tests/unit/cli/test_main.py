"""How every command fails and helps: one line, the right exit status, no values."""

import os
import subprocess
import sys
from collections.abc import Sequence

import pytest
from cryptography.fernet import Fernet

from cli.main import COMMANDS, describe_error, main
from tests.support.command import TOKENKEEPER
from tests.support.environment import ROOT
from tools.generated_docs import list_commands

Output = pytest.CaptureFixture[str]


def run(*arguments: str) -> int:
    """The exit status."""
    with pytest.raises(SystemExit) as error:
        main(arguments)
    return int(error.value.code or 0)


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "DATABASE_URL_FILE", "TOKEN_KEYS", "TOKEN_KEYS_FILE"):
        monkeypatch.delenv(name, raising=False)


def test_help_names_every_command_and_imports_none() -> None:
    code = "import sys, cli.main\ntry: cli.main.main(['--help'])\nexcept SystemExit: print(*sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert all(f"  {name} " in output for name in COMMANDS)
    assert not {"worker", "sandbox", "sqlalchemy", "requests"} & set(output.split())


@pytest.mark.parametrize("path", [*list_commands()], ids=" ".join)
def test_every_command_has_help_with_an_example(path: tuple[str, ...], capsys: Output) -> None:
    assert run(*path, "--help") == 0
    output = capsys.readouterr().out
    assert output.startswith(f"Usage: tokenkeeper {' '.join(path)}")
    assert "Example:" in output
    assert max(map(len, output.splitlines())) <= 100


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["status", "more"],
        ["refresh"],
        ["refresh", "x"],
        ["refresh", "0"],
        ["refresh", str(2**63)],
        ["disconnect"],
        ["disconnect", "1", "2"],
        ["refresh", "1", "--revoked"],
        ["connections", "--status", "gone"],
        ["connections", "--sort", "luck"],
        ["connections", "--limit", "0"],
        ["history"],
        ["history", "1", "--limit", "0"],
        ["status", "--watch"],
        ["completion"],
        ["completion", "csh"],
        ["import"],
        ["import", "/nowhere/at/all.csv"],
        ["import", "/"],
        ["keys", "nonsense"],
        ["doctor", "--fast"],
    ],
)
def test_wrong_use_is_reported_in_one_line_with_status_2(arguments: Sequence[str], capsys: Output) -> None:
    assert run(*arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("tokenkeeper: ")
    assert output.err.count("\n") == 1


@pytest.mark.parametrize(("arguments", "usage"), [([], "Usage: tokenkeeper "), (["keys"], "Usage: tokenkeeper keys ")])
def test_without_a_command_there_is_help_and_status_2(arguments: Sequence[str], usage: str, capsys: Output) -> None:
    assert run(*arguments) == 2
    output = capsys.readouterr()
    assert output.err.startswith(usage)
    assert "Commands:" in output.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["history", "abc"], "'abc' is not a HubSpot account number"),
        (["disconnect", str(2**63)], f"'{2**63}' is not a HubSpot account number"),
        (["connections", "--limit", "x"], "'x' is not a number"),
    ],
)
def test_wrong_use_says_what_is_no_number(arguments: Sequence[str], message: str, capsys: Output) -> None:
    assert run(*arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [["status"], ["connections"], ["history", "1"], ["refresh", "--revoked"], ["disconnect", "1"], ["migrate"]],
)
def test_a_missing_setting_is_reported_in_one_line_with_status_1(arguments: Sequence[str], capsys: Output) -> None:
    assert run(*arguments) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("tokenkeeper: bad settings: ")
    assert "DATABASE_URL is missing" in output.err
    assert output.err.count("\n") == 1


def test_an_unreachable_database_is_reported_in_one_line(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://user:planted-password@127.0.0.1:1/db")
    assert run("status") == 1
    error = capsys.readouterr().err
    assert error.startswith("tokenkeeper: PostgreSQL does not answer")
    assert error.count("\n") == 1
    assert "planted" not in error


def test_a_bug_is_reported_by_its_type_and_place_and_without_its_values() -> None:
    try:
        {}["planted-token"]
    except KeyError as error:
        message = describe_error(error)
    place = test_a_bug_is_reported_by_its_type_and_place_and_without_its_values.__name__
    assert message.startswith(f"a bug in tokenkeeper: KeyError in {place}, ")
    assert "planted" not in message


def test_a_new_key_is_all_that_stdout_gets(capsys: Output) -> None:
    assert run("keys", "new") == 0
    output = capsys.readouterr()
    Fernet(output.out.removesuffix("\n"))
    assert output.err == "", "no hint where stderr is not a terminal"


def test_a_reader_that_has_gone_before_the_first_line_causes_no_error_message() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    result = subprocess.run([TOKENKEEPER, "keys", "new"], stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (result.returncode, result.stderr) == (1, b"")


def test_output_that_cannot_be_written_is_no_bug() -> None:
    full = subprocess.run(
        ["sh", "-c", f"'{TOKENKEEPER}' keys new > /dev/full"], capture_output=True, text=True, check=False
    )
    message = "tokenkeeper: the output could not be written: no space left on the device\n"
    assert (full.returncode, full.stderr) == (1, message)
    closed = subprocess.run(["sh", "-c", f"'{TOKENKEEPER}' keys new >&-"], capture_output=True, check=False)
    assert (closed.returncode, closed.stderr) == (0, b"")
