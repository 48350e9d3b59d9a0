"""The last line of a hub counts, and what waits comes back by hub."""

from cli.staging_file import StagingFile, Waiting


def test_the_last_line_of_a_hub_takes_the_place_of_the_one_before() -> None:
    with StagingFile() as shelf:
        assert shelf.put(Waiting(5, 2, "first")) is None
        assert shelf.put(Waiting(4, 3, "other")) is None
        assert shelf.put(Waiting(5, 4, "second")) == 2
        assert shelf.put(Waiting(5, 9, "third")) == 4
        assert len(shelf) == 2
        assert list(shelf.batches(10)) == [[Waiting(4, 3, "other"), Waiting(5, 9, "third")]]


def test_batches_are_as_large_as_asked_for_and_the_last_holds_the_rest() -> None:
    with StagingFile() as shelf:
        for hub_id in (2**63 - 1, 3, 2, 1):
            shelf.put(Waiting(hub_id, hub_id % 7, "sealed"))
        assert [[waiting.hub_id for waiting in batch] for batch in shelf.batches(3)] == [[1, 2, 3], [2**63 - 1]]


def test_what_waits_shows_no_token_even_sealed() -> None:
    assert "sealed" not in repr(Waiting(1, 1, "sealed")).replace("encrypted_refresh_token", "")
