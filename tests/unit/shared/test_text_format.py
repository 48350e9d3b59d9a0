"""Durations in two units, times as distances, and text without control characters."""

from datetime import timedelta

import pytest

from shared.text_format import format_ago, format_duration, make_printable
from tests.support.builders import START


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (450, "7 min 30 s"),
        (3600, "1 h"),
        (11_130, "3 h 5 min"),
        (187_200, "2 d 4 h"),
    ],
)
def test_a_duration_has_its_two_largest_units(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_the_past_is_ago_and_the_future_is_in() -> None:
    assert format_ago(START - timedelta(seconds=5), START) == "5 s ago"
    assert format_ago(START + timedelta(seconds=5), START) == "in 5 s"


def test_times_of_the_same_second_have_the_same_distance() -> None:
    now = START.replace(microsecond=500_000)
    first, last = (START - timedelta(seconds=5) + timedelta(microseconds=each) for each in (0, 999_999))
    assert format_ago(first, now) == format_ago(last, now) == "5 s ago"


def test_control_characters_and_line_ends_are_replaced() -> None:
    assert make_printable("acme.com\x1b[2J\r\n\u202eevil") == "acme.com?[2J???evil"
