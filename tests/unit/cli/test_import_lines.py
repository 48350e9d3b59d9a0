"""What an import takes, and what it says of the rest: by line number, with the reason, never with the token."""

from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.import_lines import LONGEST_LINE, NO_HUB, NO_TOKEN, Line, Refused, Unreadable, read

TOKEN = "na1-planted-secret"


def lines(*texts: str | bytes) -> list[Line | Refused]:
    return list(read(BytesIO(b"\n".join(text if isinstance(text, bytes) else text.encode() for text in texts))))


def test_csv_is_read_by_its_header() -> None:
    assert lines("hub_id,refresh_token", "1,a", "2,b") == [Line(2, 1, "a"), Line(3, 2, "b")]
    assert lines("name, Refresh_Token ,HUB_ID", '"Acme, Inc.",a, 1') == [Line(2, 1, "a")]


def test_json_lines_are_read_in_any_order_with_numbers_in_quotes_too() -> None:
    texts = ('{"hub_id": 1, "refresh_token": "a"}', '{"refresh_token": "b", "hub_id": "2", "more": null}')
    assert lines(*texts) == [Line(1, 1, "a"), Line(2, 2, "b")]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_byte_order_mark_and_either_end_of_line_are_no_matter(mark: bytes, end: str) -> None:
    csv = mark + end.join(("hub_id,refresh_token", "1,a", "", '"2","b"', "")).encode()
    assert list(read(BytesIO(csv))) == [Line(2, 1, "a"), Line(4, 2, "b")]
    assert list(read(BytesIO(mark + b'{"hub_id":1,"refresh_token":"a"}' + end.encode()))) == [Line(1, 1, "a")]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (f"0,{TOKEN}", NO_HUB),
        (f"-1,{TOKEN}", NO_HUB),
        (f"{2**63},{TOKEN}", NO_HUB),
        (f"{'9' * 5000},{TOKEN}", NO_HUB),
        (f"1e3,{TOKEN}", NO_HUB),
        (f"1_0,{TOKEN}", NO_HUB),
        (f"\u0661,{TOKEN}", NO_HUB),
        (f",{TOKEN}", NO_HUB),
        (f"{TOKEN},62515", NO_HUB),
        ("1,", NO_TOKEN),
        (f"1,{TOKEN} {TOKEN}", NO_TOKEN),
        (f"1,{TOKEN}\0", NO_TOKEN),
        (f"1,{TOKEN}é", NO_TOKEN),
        (f"1,{'x' * (16 * 1024 + 1)}", NO_TOKEN),
        (f"1,{TOKEN},", "has 3 fields, the header 2"),
        ("1", "has 1 fields, the header 2"),
        (f'1,"{TOKEN}', "not CSV: a quote that does not end in its line, say"),
        (f"1,{TOKEN}".encode() + b"\xff", "not UTF-8"),
        (f"1,{TOKEN * LONGEST_LINE}", f"longer than {LONGEST_LINE} bytes"),
    ],
)
def test_a_bad_csv_line_is_refused_by_its_number_and_the_rest_is_read(line: str | bytes, why: str) -> None:
    found = lines("hub_id,refresh_token", line, f"{2**63 - 1},b")
    assert found == [Refused(2, why), Line(3, 2**63 - 1, "b")]
    assert TOKEN not in repr(found)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("not json", "not a JSON object on one line"),
        ("[" * 60_000, "not a JSON object on one line"),
        ('{"a":' * 10_000, "not a JSON object on one line"),
        (f'["{TOKEN}"]', "not a JSON object on one line"),
        (f'{{"hub_id": {"9" * 5000}, "refresh_token": "{TOKEN}"}}', "not a JSON object on one line"),
        (f'{{"hub_id": true, "refresh_token": "{TOKEN}"}}', NO_HUB),
        (f'{{"hub_id": 1.0, "refresh_token": "{TOKEN}"}}', NO_HUB),
        (f'{{"hub_id": NaN, "refresh_token": "{TOKEN}"}}', NO_HUB),
        (f'{{"hub_id": [1], "refresh_token": "{TOKEN}"}}', NO_HUB),
        (f'{{"refresh_token": "{TOKEN}"}}', NO_HUB),
        ('{"hub_id": 1}', NO_TOKEN),
        ('{"hub_id": 1, "refresh_token": 7}', NO_TOKEN),
        (f'{{"hub_id": 1, "refresh_token": "{TOKEN}\\u0000"}}', NO_TOKEN),
        (f'{{"hub_id": 1, "refresh_token": "{TOKEN}\\ud800"}}', NO_TOKEN),
    ],
)
def test_a_bad_json_line_is_refused_by_its_number_and_the_rest_is_read(line: str, why: str) -> None:
    found = lines('{"hub_id": 1, "refresh_token": "a"}', line, '{"hub_id": 2, "refresh_token": "b"}')
    assert found == [Line(1, 1, "a"), Refused(2, why), Line(3, 2, "b")]
    assert TOKEN not in repr(found)


@pytest.mark.parametrize(
    ("file", "why"),
    [
        (b"", "there is nothing in it"),
        (b"\n \r\n", "there is nothing in it"),
        (f"1,{TOKEN}\n".encode(), "the header"),
        (f"hub_id;refresh_token\n1;{TOKEN}".encode(), "the header"),
        (b"hub_id,hub_id,refresh_token\n", "the header"),
        (b'[{"hub_id": 1}]', "the header"),
        ("hub_id,refresh_token".encode("utf-16"), "line 1: not UTF-8"),
        (b"x" * (LONGEST_LINE + 1), "line 1: longer than"),
    ],
)
def test_a_file_that_is_something_else_is_refused_as_a_whole(file: bytes, why: str) -> None:
    with pytest.raises(Unreadable, match=why) as error:
        list(read(BytesIO(file)))
    assert TOKEN not in str(error.value)


def test_a_line_as_long_as_may_be_is_read_and_one_byte_more_is_not() -> None:
    padding = " " * (LONGEST_LINE - len("1,a\n"))
    header, end = b"hub_id,refresh_token\n", b"\n2,b"
    assert list(read(BytesIO(header + f"1,a{padding}".encode() + end))) == [Line(2, 1, "a"), Line(3, 2, "b")]
    found = list(read(BytesIO(header + f"1,a{padding} ".encode() + end)))
    assert found == [Refused(2, f"longer than {LONGEST_LINE} bytes"), Line(3, 2, "b")]


@given(st.sampled_from([b"hub_id,refresh_token\n", b'{"hub_id": 1, "refresh_token": "a"}\n', b""]), st.binary())
def test_no_bytes_break_it(start: bytes, rest: bytes) -> None:
    try:
        found = list(read(BytesIO(start + rest)))
    except Unreadable:
        return
    assert all(line.number >= 1 for line in found)
