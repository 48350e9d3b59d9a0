"""The last line of a hub counts, and staged lines come back by hub id."""

from cli.imports.staging_file import StagedLine, StagingFile


def test_a_later_line_of_a_hub_replaces_the_earlier_one() -> None:
    with StagingFile() as staging:
        assert staging.put_line(StagedLine(5, 2, "first")) is None
        assert staging.put_line(StagedLine(4, 3, "other")) is None
        assert staging.put_line(StagedLine(5, 4, "second")) == 2
        assert staging.put_line(StagedLine(5, 9, "third")) == 4
        assert len(staging) == 2
        assert list(staging.read_batches(10)) == [[StagedLine(4, 3, "other"), StagedLine(5, 9, "third")]]


def test_batches_have_the_given_size_and_the_last_has_the_rest() -> None:
    with StagingFile() as staging:
        for hub_id in (2**63 - 1, 3, 2, 1):
            staging.put_line(StagedLine(hub_id, hub_id % 7, "ciphertext"))
        assert [[line.hub_id for line in batch] for batch in staging.read_batches(3)] == [[1, 2, 3], [2**63 - 1]]


def test_the_repr_of_a_staged_line_has_no_token_even_encrypted() -> None:
    assert "ciphertext" not in repr(StagedLine(1, 1, "ciphertext"))
