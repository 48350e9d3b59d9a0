"""What .env may hold, and what is said of a line that is no setting."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox.dotenv import BadDotenv, read


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

    assert read(path) == {"NAME": value}


def test_an_editors_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("NAME=value\n", encoding="utf-8-sig")

    assert read(tmp_path / ".env") == {"NAME": "value"}


def test_the_last_of_two_lines_wins(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=1\nB=2\nA=3\n")

    assert read(tmp_path / ".env") == {"A": "3", "B": "2"}


def test_no_file_is_no_setting(tmp_path: Path) -> None:
    assert read(tmp_path / ".env") == {}


@pytest.mark.parametrize("line", ["s3cret", "1NAME=s3cret", "NAME='s3cret", 'NAME="s3cret', "NAME='s3cret' more"])
def test_a_bad_line_is_named_and_not_shown(tmp_path: Path, line: str) -> None:
    (tmp_path / ".env").write_text(f"FINE=1\n{line}\n")

    with pytest.raises(BadDotenv, match=r"\.env, line 2") as caught:
        read(tmp_path / ".env")

    assert "s3cret" not in str(caught.value)


def test_what_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"NAME=\xff\xfe\n")

    with pytest.raises(BadDotenv, match="UTF-8"):
        read(tmp_path / ".env")


def test_the_example_file_is_one(tmp_path: Path) -> None:
    example = Path(__file__).parents[3] / ".env.example"

    settings = read(example)

    assert "HUBSPOT_CLIENT_ID" in settings
    assert not any(settings.values())
