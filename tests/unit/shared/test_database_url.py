"""DATABASE_URL is read as libpq reads it."""

from __future__ import annotations

from contextlib import suppress
from urllib.parse import quote

import psycopg2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from psycopg2.extensions import parse_dsn

from shared.database_url import LIBPQ_PARAMETERS, InvalidDatabaseUrl, parse_database_url

TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)
QUOTED = TEXTS.map(lambda text: quote(text, safe=""))
HOSTS = st.tuples(
    st.sampled_from(["db", "10.0.0.1", "[::1]", "%2Frun%2Fpostgresql", ""]), st.sampled_from(["", ":5432", ":1"])
).map("".join)
QUERIES = st.tuples(st.sampled_from(sorted(LIBPQ_PARAMETERS - {"host", "port", "requiressl"})), QUOTED).map("=".join)


@given(
    login=st.one_of(st.just(""), st.tuples(QUOTED, QUOTED).map(lambda parts: ":".join(parts) + "@")),
    hosts=st.lists(HOSTS, min_size=1, max_size=3),
    database=st.one_of(st.just(""), QUOTED),
    queries=st.lists(QUERIES, max_size=3),
)
@example(login="u:p@", hosts=["h1:1", "h2:2"], database="db", queries=["target_session_attrs=read-write"])
def test_a_well_formed_url_has_the_parameters_that_libpq_finds(
    login: str, hosts: list[str], database: str, queries: list[str]
) -> None:
    url = f"postgresql://{login}{','.join(hosts)}/{database}" + (f"?{'&'.join(queries)}" if queries else "")
    ours = parse_database_url(url)
    theirs = {name: value for name, value in parse_dsn(url).items() if value.strip(",")}
    assert ours == theirs


@example("%a1")
@given(st.text(st.sampled_from("ab12:/@?&=,%[]-._ "), max_size=30))
def test_what_libpq_refuses_is_refused(rest: str) -> None:
    url = f"postgresql://{rest}"
    try:
        parse_dsn(url)
    except (psycopg2.ProgrammingError, UnicodeDecodeError):
        with pytest.raises(InvalidDatabaseUrl):
            parse_database_url(url)
    else:
        with suppress(InvalidDatabaseUrl):  # libpq looks at a port only as it connects
            parse_database_url(url)


def test_no_parameter_is_listed_that_this_libpq_does_not_know() -> None:
    for name in LIBPQ_PARAMETERS:
        parse_dsn(f"postgresql://h/db?{name}=1")


@pytest.mark.parametrize("url", ["postgresql://u:p%zz@h/db", "postgresql://u:p%00@h/db", "postgresql://u:secret@h:0/"])
def test_the_reason_contains_no_value(url: str) -> None:
    with pytest.raises(InvalidDatabaseUrl) as refused:
        parse_database_url(url)
    assert str(refused.value)
    assert "secret" not in str(refused.value)
