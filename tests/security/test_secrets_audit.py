"""Every secret of a run is marked; afterwards no mark is found outside its allowed places, in any encoding."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import pytest
import redis

from tests.security import locations
from tests.security.audit import ACCESS, MARKED, Audit
from tests.security.markers import Finding, Mark, Search, new_mark
from tests.security.scenario import run_scenario
from tests.support.environment import ROOT

#: Access tokens are in the table from which SQL reads them, and in PostgreSQL's write-ahead log of it.
ALLOWED = {(ACCESS, locations.CONNECTIONS_TABLE), (ACCESS, locations.WRITE_AHEAD_LOG)}


@pytest.fixture(scope="module")
def finished_audit(audit: Audit) -> Audit:
    run_scenario(audit)
    return audit


def read_all_places(audit: Audit) -> Iterator[tuple[str, bytes]]:
    return chain(
        audit.notes,
        locations.logs(audit),
        locations.posts(audit),
        locations.dump_tables(audit),
        locations.postgres_files(audit),
        locations.valkey_files(audit),
        locations.root_files(ROOT),
    )


@pytest.mark.timeout(400)
def test_no_secret_is_found_outside_its_allowed_places(finished_audit: Audit) -> None:
    findings = [
        finding
        for place, content in read_all_places(finished_audit)
        for finding in finished_audit.search.find(place, content)
        if (finding.kind, finding.place) not in ALLOWED
    ]
    assert not findings, "\n".join(map(str, findings[:40]))


def test_the_audit_reads_content_of_every_place(finished_audit: Audit) -> None:
    """A place without content proves nothing."""
    sizes: dict[str, int] = {}
    for place, content in read_all_places(finished_audit):
        sizes[place] = sizes.get(place, 0) + len(content)
    for place in (
        "answer to GET /oauth/callback",
        "answer to GET /metrics",
        "answer to GET /operator",
        "answer to GET /api/tasks",
        "commands to Redis",
        "Redis key tokenkeeper.interactive",
        "alert",
        "PostgreSQL log",
        locations.CONNECTIONS_TABLE,
        locations.WRITE_AHEAD_LOG,
        "PostgreSQL table tokenkeeper.history",
        "Valkey file dump.rdb",
        "/proc: environ of postgres",
        "/proc: cmdline of valkey-server",
        "tokenkeeper import",
    ):
        assert sizes.get(place, 0) > 0, place
    assert any(place.startswith("Valkey file appendonly.aof") and size for place, size in sizes.items())


def test_the_audit_finds_access_tokens_where_they_are_allowed(finished_audit: Audit) -> None:
    """This shows that the search reads the files, the log and the dump."""
    places = set()
    for place, content in chain(locations.dump_tables(finished_audit), locations.postgres_files(finished_audit)):
        places |= {(finding.kind, finding.place) for finding in finished_audit.search.find(place, content)}
    assert places >= ALLOWED


def test_planted_marks_are_found(finished_audit: Audit) -> None:
    """A mark of each kind, in the tables and files of both servers."""
    sql = finished_audit.deployment.sql
    sql.rows("CREATE TABLE tokenkeeper.planted (value text)")
    with redis.Redis.from_url(finished_audit.servers.valkey.url()) as broker:
        for kind in MARKED:
            sql.rows("INSERT INTO tokenkeeper.planted VALUES (%s)", finished_audit.marks[kind].text)
            broker.set(f"planted-{kind}", finished_audit.marks[kind].text)
    places_by_kind: dict[str, set[str]] = {kind: set() for kind in finished_audit.marks}
    for place, content in chain(
        locations.dump_tables(finished_audit),
        locations.postgres_files(finished_audit),
        locations.valkey_files(finished_audit),
    ):
        for finding in finished_audit.search.find(place, content):
            places_by_kind[finding.kind].add(finding.place)
    for kind in MARKED:
        places = places_by_kind[kind]
        assert places >= {"PostgreSQL table tokenkeeper.planted", "Valkey file dump.rdb"}, kind
        assert any(place.startswith("Valkey file appendonly.aof") for place in places), kind
        assert any(place.startswith("PostgreSQL file base/") for place in places), kind


@pytest.mark.parametrize("before", ["", "a", "ab", "abc"])
@pytest.mark.parametrize("after", ["", "x", "xy", "}"])
def test_a_mark_is_found_in_every_encoding(before: str, after: str) -> None:
    import base64
    import json
    import urllib.parse

    mark = Mark("kind", new_mark("kind").text)
    text = f"{before}{mark.text}{after}"
    written = [
        text.encode(),
        base64.b64encode(text.encode()),
        base64.urlsafe_b64encode(f"{text}\xff".encode()),
        text.encode().hex().encode(),
        text.encode("utf-16-le"),
        urllib.parse.quote(f"{text}&=é").encode(),
        json.dumps({"é": f"{text}\n"}).encode(),
        repr(text.encode()).encode(),
    ]
    for form in written:
        assert [finding.kind for finding in Search([mark]).find("here", b"__" + form + b"__")][:1] == ["kind"], form
    assert Search([mark]).find("here", b"__" + mark.text[:-1].encode() + b"__") == []


def test_a_finding_names_its_place(finished_audit: Audit) -> None:
    mark = next(iter(finished_audit.marks.values()))
    (found,) = Search([mark]).find("a place", f"before {mark.text} after")
    assert str(Finding(mark.kind, "a place", repr(f"before {mark.text} after".encode()))) == str(found)
