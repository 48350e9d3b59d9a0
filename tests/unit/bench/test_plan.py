"""SIZE and QUICK are refused in one line where they make no sense."""

from __future__ import annotations

import pytest

from bench.__main__ import main
from bench.plan import MAX_SIZE, MIN_SIZE, InvalidSize, parse_size


def test_a_size_is_a_number_within_bounds() -> None:
    assert parse_size("10000000") == 10_000_000
    assert parse_size("10_000_000") == 10_000_000
    assert (parse_size(str(MIN_SIZE)), parse_size(str(MAX_SIZE))) == (MIN_SIZE, MAX_SIZE)


@pytest.mark.parametrize("text", ["ten", "1e6", "", "-5", "0", str(MIN_SIZE - 1), str(MAX_SIZE + 1), "9" * 5000])
def test_any_other_size_is_refused(text: str) -> None:
    with pytest.raises(InvalidSize, match="SIZE is a number of connections from 100000 to 100000000, such as 10000000"):
        parse_size(text)


@pytest.mark.parametrize("arguments", [["--size", "ten"], ["--quick", "--size", "1000000"]])
def test_wrong_use_is_one_line_and_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
