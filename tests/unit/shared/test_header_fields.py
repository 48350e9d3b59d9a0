"""The header fields of a reply, from the lines as libcurl hands them over."""

from shared.net.http_call import HeaderFields


def test_names_are_in_lower_case_and_the_last_field_of_a_name_counts() -> None:
    fields = HeaderFields(b"HTTP/1.1 200 OK\r\nDate: today\r\nRetry-After:  5 \r\nretry-after: 7\r\n\r\n")
    assert (fields["retry-after"], fields.get("date"), fields.get("server")) == ("7", "today", None)
    assert {"retry-after", "date"} <= set(fields)
    assert len(fields) == len(set(fields))


def test_fields_of_a_proxy_and_of_an_interim_reply_are_left_out() -> None:
    fields = HeaderFields(
        b"HTTP/1.1 200 Connection established\r\nVia: proxy\r\n\r\n"
        b"HTTP/1.1 103 Early Hints\r\nLink: style\r\n\r\n"
        b"HTTP/1.1 429 Slow\r\nRetry-After: 3\r\n\r\n"
    )
    assert [fields.get(name) for name in ("via", "link", "retry-after")] == [None, None, "3"]
