"""Lines that a .env file may have, and errors for lines that are no setting."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox.dotenv import DotenvError, read_dotenv


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("NAME=value", "value"),
        ("NAME = spaced out ", "spaced out"),
        ("export NAME=value", "value"),
        ("NAME=", ""),
        ("NAME=value # a remark", "value"),
        ("NAME=#remark", ""),
        ("NAME=a#b", "a#b"),
        ("NAME=a=b==", "a=b=="),
        ("NAME='a # b $HOME \\n'", "a # b $HOME \\n"),
        ('NAME="a # b" # remark', "a # b"),
        ('NAME="say \\"hi\\" for \\$5"', 'say "hi" for $5'),
        ("NAME=pa$$word", "pa$$word"),
    ],
)
def test_a_line_is_read_as_written(tmp_path: Path, line: str, value: str) -> None:
    path = tmp_path / ".env"
    path.write_text(f"# a comment\n\n{line}\r\n  # another\n", encoding="utf-8")

    assert read_dotenv(path) == {"NAME": value}


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("NAME=value\n", encoding="utf-8-sig")

    assert read_dotenv(tmp_path / ".env") == {"NAME": "value"}


def test_the_last_of_two_lines_with_one_name_wins(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=1\nB=2\nA=3\n")

    assert read_dotenv(tmp_path / ".env") == {"A": "3", "B": "2"}


def test_a_missing_file_gives_no_settings(tmp_path: Path) -> None:
    assert read_dotenv(tmp_path / ".env") == {}


@pytest.mark.parametrize("line", ["s3cret", "1NAME=s3cret", "NAME='s3cret", 'NAME="s3cret', "NAME='s3cret' more"])
def test_an_invalid_line_is_reported_by_number_and_not_shown(tmp_path: Path, line: str) -> None:
    (tmp_path / ".env").write_text(f"FINE=1\n{line}\n")

    with pytest.raises(DotenvError, match=r"\.env, line 2") as caught:
        read_dotenv(tmp_path / ".env")

    assert "s3cret" not in str(caught.value)


def test_a_file_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"NAME=\xff\xfe\n")

    with pytest.raises(DotenvError, match="UTF-8"):
        read_dotenv(tmp_path / ".env")


def test_the_example_file_can_be_read_and_sets_nothing() -> None:
    example = Path(__file__).parents[3] / ".env.example"

    settings = read_dotenv(example)

    assert "HUBSPOT_CLIENT_ID" in settings
    assert not any(settings.values())
