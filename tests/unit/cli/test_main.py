"""How every verb fails and helps: one line, the right status, no values."""

import subprocess
import sys
from collections.abc import Iterator, Sequence

import click
import pytest
from cryptography.fernet import Fernet

from cli.main import VERBS, in_one_line, main, verbs
from tests.support.environment import ROOT

Output = pytest.CaptureFixture[str]


def status(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    return int(end.value.code or 0)


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "DATABASE_URL_FILE", "TOKEN_KEYS", "TOKEN_KEYS_FILE"):
        monkeypatch.delenv(name, raising=False)


def test_help_names_every_verb_and_loads_none() -> None:
    code = "import sys, cli.main\ntry: cli.main.main(['--help'])\nexcept SystemExit: print(*sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert all(f"  {name} " in said for name in VERBS)
    assert not {"worker", "sandbox", "sqlalchemy", "requests"} & set(said.split())


def every_command(command: click.Command = verbs, *path: str) -> Iterator[tuple[str, ...]]:
    """The verbs, and the verbs within them."""
    if path:
        yield path
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            within = command.get_command(context, name)
            assert within is not None
            yield from every_command(within, *path, name)


@pytest.mark.parametrize("path", [*every_command()], ids=" ".join)
def test_every_verb_has_help_with_an_example(path: tuple[str, ...], capsys: Output) -> None:
    assert status(*path, "--help") == 0
    said = capsys.readouterr().out
    assert said.startswith(f"Usage: tokenkeeper {' '.join(path)}")
    assert "Example:" in said
    assert max(map(len, said.splitlines())) <= 100


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
def test_wrong_use_is_told_in_one_line_with_status_2(arguments: Sequence[str], capsys: Output) -> None:
    assert status(*arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("tokenkeeper: ")
    assert said.err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [["status"], ["connections"], ["history", "1"], ["refresh", "--revoked"], ["disconnect", "1"], ["migrate"]],
)
def test_a_missing_setting_is_told_in_one_line_with_status_1(arguments: Sequence[str], capsys: Output) -> None:
    assert status(*arguments) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("tokenkeeper: bad settings: DATABASE_URL is missing")
    assert said.err.count("\n") == 1


def test_a_database_that_is_not_there_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://user:planted-password@127.0.0.1:1/db")
    assert status("status") == 1
    said = capsys.readouterr().err
    assert said.startswith("tokenkeeper: PostgreSQL does not answer")
    assert said.count("\n") == 1
    assert "planted" not in said


def test_a_bug_is_told_by_its_type_and_place_and_without_its_values() -> None:
    try:
        {}["planted-token"]
    except KeyError as error:
        said = in_one_line(error)
    assert said.startswith(
        f"a bug of ours: KeyError in {test_a_bug_is_told_by_its_type_and_place_and_without_its_values.__name__}, "
    )
    assert "planted" not in said


def test_a_new_key_is_all_that_stdout_gets(capsys: Output) -> None:
    assert status("keys", "new") == 0
    said = capsys.readouterr()
    Fernet(said.out.removesuffix("\n"))
    assert said.err == "", "no hint where nobody looks"
