"""Times in words, hubs in a few, and nothing that a terminal would obey."""

from datetime import timedelta

import pytest

from cli.output import told
from shared.text_format import format_ago, format_duration, make_printable
from tests.support.builders import START


@pytest.mark.parametrize(
    ("seconds", "words"),
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
def test_a_time_is_told_in_the_two_units_that_matter(seconds: float, words: str) -> None:
    assert format_duration(seconds) == words


def test_past_and_future_are_told_apart() -> None:
    assert format_ago(START - timedelta(seconds=5), START) == "5 s ago"
    assert format_ago(START + timedelta(seconds=5), START) == "in 5 s"


def test_many_hubs_are_told_by_their_number_and_the_first_few() -> None:
    assert told([7]) == "hub 7"
    assert told([1, 2]) == "2 hubs (1, 2)"
    assert told(range(1, 1205)) == "1,204 hubs (1, 2, 3, 4, 5, …)"


def test_what_others_wrote_moves_no_cursor_and_makes_no_second_line() -> None:
    assert make_printable("acme.com\x1b[2J\r\n\u202eevil") == "acme.com?[2J???evil"
