"""Which lines an import takes, and how it refuses the others: by line number, with a reason, never with the token."""

from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.imports.lines import (
    BAD_APP,
    BAD_HUB_ID,
    BAD_REFRESH_TOKEN,
    BAD_USER_ID,
    MAX_LINE_BYTES,
    ImportLine,
    RefusedLine,
    UnreadableFile,
    read_lines,
)

TOKEN = "na1-planted-secret"


def lines(*texts: str | bytes) -> list[ImportLine | RefusedLine]:
    return list(read_lines(BytesIO(b"\n".join(text if isinstance(text, bytes) else text.encode() for text in texts))))


def test_csv_is_read_by_its_header() -> None:
    assert lines("hub_id,refresh_token", "1,a", "2,b") == [ImportLine(2, 1, "a"), ImportLine(3, 2, "b")]
    assert lines("name, Refresh_Token ,HUB_ID", '"Acme, Inc.",a, 1') == [ImportLine(2, 1, "a")]


def test_json_lines_are_read_in_any_order_with_numbers_in_quotes_too() -> None:
    texts = ('{"hub_id": 1, "refresh_token": "a"}', '{"refresh_token": "b", "hub_id": "2", "more": null}')
    assert lines(*texts) == [ImportLine(1, 1, "a"), ImportLine(2, 2, "b")]


def test_a_line_may_name_app_user_and_customer_and_an_empty_value_is_none() -> None:
    header = "hub_id,refresh_token,app,user_id,customer"
    assert lines(header, "1,a,crm,7,Acme GmbH", "2,b,,,") == [
        ImportLine(2, 1, "a", app="crm", user_id=7, customer="Acme GmbH"),
        ImportLine(3, 2, "b"),
    ]
    assert lines('{"hub_id":1,"refresh_token":"a","app":"crm","user_id":"7","customer":"acme"}') == [
        ImportLine(1, 1, "a", app="crm", user_id=7, customer="acme")
    ]
    refused = lines(header, "1,a,CRM,,", "1,a,crm,x,", f"1,a,crm,7,{'c' * 201}", '1,a,crm,7,"a\x07b"')
    assert [line.reason for line in refused if isinstance(line, RefusedLine)] == [
        BAD_APP,
        BAD_USER_ID,
        "customer cannot be used: it must have 1 to 200 characters",
        "customer cannot be used: it must have no control characters",
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_byte_order_mark_and_either_line_end_are_accepted(mark: bytes, end: str) -> None:
    csv = mark + end.join(("hub_id,refresh_token", "1,a", "", '"2","b"', "")).encode()
    assert list(read_lines(BytesIO(csv))) == [ImportLine(2, 1, "a"), ImportLine(4, 2, "b")]
    assert list(read_lines(BytesIO(mark + b'{"hub_id":1,"refresh_token":"a"}' + end.encode()))) == [
        ImportLine(1, 1, "a")
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (f"0,{TOKEN}", BAD_HUB_ID),
        (f"-1,{TOKEN}", BAD_HUB_ID),
        (f"{2**63},{TOKEN}", BAD_HUB_ID),
        (f"{'9' * 5000},{TOKEN}", BAD_HUB_ID),
        (f"1e3,{TOKEN}", BAD_HUB_ID),
        (f"1_0,{TOKEN}", BAD_HUB_ID),
        (f"\u0661,{TOKEN}", BAD_HUB_ID),
        (f",{TOKEN}", BAD_HUB_ID),
        (f"{TOKEN},62515", BAD_HUB_ID),
        ("1,", BAD_REFRESH_TOKEN),
        (f"1,{TOKEN} {TOKEN}", BAD_REFRESH_TOKEN),
        (f"1,{TOKEN}\0", BAD_REFRESH_TOKEN),
        (f"1,{TOKEN}é", BAD_REFRESH_TOKEN),
        (f"1,{'x' * (16 * 1024 + 1)}", BAD_REFRESH_TOKEN),
        (f"1,{TOKEN},", "has 3 fields, the header 2"),
        ("1", "has 1 fields, the header 2"),
        (f'1,"{TOKEN}', "not CSV, for example a quote that does not end in its line"),
        (f"1,{TOKEN}".encode() + b"\xff", "not UTF-8"),
        (f"1,{TOKEN * MAX_LINE_BYTES}", f"longer than {MAX_LINE_BYTES} bytes"),
    ],
)
def test_a_bad_csv_line_is_refused_by_its_number_and_the_rest_is_read(line: str | bytes, reason: str) -> None:
    result = lines("hub_id,refresh_token", line, f"{2**63 - 1},b")
    assert result == [RefusedLine(2, reason), ImportLine(3, 2**63 - 1, "b")]
    assert TOKEN not in repr(result)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("not json", "not a JSON object on one line"),
        ("[" * 60_000, "not a JSON object on one line"),
        ('{"a":' * 10_000, "not a JSON object on one line"),
        (f'["{TOKEN}"]', "not a JSON object on one line"),
        (f'{{"hub_id": {"9" * 5000}, "refresh_token": "{TOKEN}"}}', "not a JSON object on one line"),
        (f'{{"hub_id": true, "refresh_token": "{TOKEN}"}}', BAD_HUB_ID),
        (f'{{"hub_id": 1.0, "refresh_token": "{TOKEN}"}}', BAD_HUB_ID),
        (f'{{"hub_id": NaN, "refresh_token": "{TOKEN}"}}', BAD_HUB_ID),
        (f'{{"hub_id": [1], "refresh_token": "{TOKEN}"}}', BAD_HUB_ID),
        (f'{{"refresh_token": "{TOKEN}"}}', BAD_HUB_ID),
        ('{"hub_id": 1}', BAD_REFRESH_TOKEN),
        ('{"hub_id": 1, "refresh_token": 7}', BAD_REFRESH_TOKEN),
        (f'{{"hub_id": 1, "refresh_token": "{TOKEN}\\u0000"}}', BAD_REFRESH_TOKEN),
        (f'{{"hub_id": 1, "refresh_token": "{TOKEN}\\ud800"}}', BAD_REFRESH_TOKEN),
    ],
)
def test_a_bad_json_line_is_refused_by_its_number_and_the_rest_is_read(line: str, reason: str) -> None:
    result = lines('{"hub_id": 1, "refresh_token": "a"}', line, '{"hub_id": 2, "refresh_token": "b"}')
    assert result == [ImportLine(1, 1, "a"), RefusedLine(2, reason), ImportLine(3, 2, "b")]
    assert TOKEN not in repr(result)


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (b"", "the file is empty"),
        (b"\n \r\n", "the file is empty"),
        (f"1,{TOKEN}\n".encode(), "the header"),
        (f"hub_id;refresh_token\n1;{TOKEN}".encode(), "the header"),
        (b"hub_id,hub_id,refresh_token\n", "the header"),
        (b'hub_id,"refresh_token\n', "the header"),
        (b'[{"hub_id": 1}]', "the header"),
        ("hub_id,refresh_token".encode("utf-16"), "line 1: not UTF-8"),
        (b"x" * (MAX_LINE_BYTES + 1), "line 1: longer than"),
    ],
)
def test_a_file_of_another_kind_is_refused_as_a_whole(file: bytes, reason: str) -> None:
    with pytest.raises(UnreadableFile, match=reason) as error:
        list(read_lines(BytesIO(file)))
    assert TOKEN not in str(error.value)


def test_a_line_of_the_maximum_length_is_read_and_a_longer_one_is_refused() -> None:
    padding = " " * (MAX_LINE_BYTES - len("1,a\n"))
    header, end = b"hub_id,refresh_token\n", b"\n2,b"
    assert list(read_lines(BytesIO(header + f"1,a{padding}".encode() + end))) == [
        ImportLine(2, 1, "a"),
        ImportLine(3, 2, "b"),
    ]
    result = list(read_lines(BytesIO(header + f"1,a{padding} ".encode() + end)))
    assert result == [RefusedLine(2, f"longer than {MAX_LINE_BYTES} bytes"), ImportLine(3, 2, "b")]


@given(st.sampled_from([b"hub_id,refresh_token\n", b'{"hub_id": 1, "refresh_token": "a"}\n', b""]), st.binary())
def test_any_bytes_are_read_or_refused(start: bytes, rest: bytes) -> None:
    try:
        result = list(read_lines(BytesIO(start + rest)))
    except UnreadableFile:
        return
    assert all(line.number >= 1 for line in result)
