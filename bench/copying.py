"""Stores copies of the connection of hub 1: `python -m bench.copying FIRST_HUB END_HUB FIRST_DUE TOKEN_SECONDS`.

An import of a million rows takes minutes. A copy is the row that the import has written, with another hub, that hub's
refresh token as the product encrypts it, its own access token and a due time. Hubs are FIRST_HUB to END_HUB - 1; due
times are spread over the part of a token's life after which it is refreshed, from FIRST_DUE.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import closing

import psycopg2

from bench.hubspot import TOKEN_CHARACTERS, make_refresh_token
from bench.stored_connections import DUE_FRACTION
from shared.settings import Settings
from shared.token_cipher import TokenCipher

BATCH_ROWS = 20_000
#: Of the row that is copied: all columns but those that differ, and the id.
LIST_COPIED_COLUMNS = """
SELECT string_agg(quote_ident(attname), ', ') FROM pg_attribute
 WHERE attrelid = 'tokenkeeper.connections'::regclass AND attnum > 0 AND NOT attisdropped
   AND attname NOT IN ('id', 'hub_id', 'encrypted_refresh_token', 'access_token', 'due_at')
"""
PREPARE = """
SET synchronous_commit = off;
CREATE TEMPORARY TABLE given (hub_id bigint, ciphertext text)
"""
INSERT = f"""
INSERT INTO tokenkeeper.connections (hub_id, encrypted_refresh_token, access_token, due_at, {{columns}})
SELECT given.hub_id, ciphertext, rpad('CI' || given.hub_id, {TOKEN_CHARACTERS}, md5(given.hub_id::text)),
       %s::timestamptz + make_interval(secs => random() * %s), {{columns}}
  FROM (SELECT {{columns}} FROM tokenkeeper.connections WHERE hub_id = 1) AS original, given
"""


def main(settings: Settings, first_hub_id: int, end_hub_id: int, first_due: str, token_seconds: float) -> None:
    cipher = TokenCipher(settings.token_keys)
    with closing(psycopg2.connect(settings.database_url)) as connection, connection.cursor() as cursor:
        cursor.execute(PREPARE)
        cursor.execute(LIST_COPIED_COLUMNS)
        ((columns,),) = cursor.fetchall()
        for start in range(first_hub_id, end_hub_id, BATCH_ROWS):
            rows = _encrypt(cipher, start, min(end_hub_id, start + BATCH_ROWS))
            cursor.execute("TRUNCATE given")
            cursor.copy_expert("COPY given FROM STDIN", rows)
            cursor.execute(INSERT.format(columns=columns), (first_due, token_seconds * DUE_FRACTION))
            connection.commit()
    print("stored", flush=True)


def _encrypt(cipher: TokenCipher, start: int, end: int) -> io.StringIO:
    return io.StringIO(
        "".join(
            f"{hub_id}\t{cipher.encrypt_refresh_token(hub_id, make_refresh_token(hub_id))}\n"
            for hub_id in range(start, end)
        )
    )


if __name__ == "__main__":
    needs = ("DATABASE_URL", "TOKEN_KEYS")
    given = Settings.from_env(os.environ, needs)  # noqa: TID251  an entry point
    main(given, int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], float(sys.argv[4]))
