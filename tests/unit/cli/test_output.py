"""Of many hubs, a few are named."""

from cli.output import format_hubs


def test_many_hubs_are_given_as_their_number_and_the_first_five() -> None:
    assert format_hubs([7]) == "hub 7"
    assert format_hubs([1, 2]) == "2 hubs (1, 2)"
    assert format_hubs(range(1, 1205)) == "1,204 hubs (1, 2, 3, 4, 5, …)"
