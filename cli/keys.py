"""`tokenkeeper keys`: make keys for TOKEN_KEYS, and re-encrypt every refresh token with the newest."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

import click
from cryptography.fernet import Fernet

from cli.context import load_settings, open_database
from cli.output import confirm_or_abort, format_hubs, make_epilog, track_pages, yes_option
from shared.db.lifecycle.key_check import KeyCheckStore
from shared.db.lifecycle.key_rotation import EncryptedToken, KeyRotationStore, TokenPlace
from shared.db.reports.connections import ConnectionReports
from shared.token_cipher import TokenCipher
from shared.workflows.key_rotation import PAGE_ROWS, KeyAudit, count_tokens, read_undecryptable, rotate_keys

NEEDS = ("DATABASE_URL", "TOKEN_KEYS")
NEXT_STEPS = (
    "put it first in TOKEN_KEYS, before the old ones, restart web and worker, then run: tokenkeeper keys rotate"
)
#: The browser's encrypted copy of an install (web/security/cookies.py) lives a day.
KEEP_OLD_KEYS = "installs of the last day may still wait, encrypted with an older key: take the old keys out tomorrow"


@click.group("keys", epilog=make_epilog("tokenkeeper keys new"))
def keys() -> None:
    """Make and rotate the keys in TOKEN_KEYS."""


@keys.command("new", epilog=make_epilog('TOKEN_KEYS="$(tokenkeeper keys new),$TOKEN_KEYS"'))
def print_new_key() -> None:
    """Print a new key for TOKEN_KEYS; nothing is stored."""
    click.echo(Fernet.generate_key().decode())
    if sys.stderr.isatty():
        click.echo(NEXT_STEPS, err=True)


@keys.command(
    "rotate",
    short_help="Re-encrypt every row with the newest key.",
    epilog=make_epilog("tokenkeeper keys rotate", needs=NEEDS),
)
def rotate() -> None:
    """Re-encrypt every row with the newest of TOKEN_KEYS while everything runs, and prove that no row needs an older.

    It may be stopped and run again at any time.
    """
    settings = load_settings(*NEEDS)
    with open_database(settings) as engine, track_pages(count_tokens(ConnectionReports(engine))) as track:
        cipher = TokenCipher(settings.token_keys)
        reencrypted, audit = rotate_keys(KeyRotationStore(engine), cipher, track)
        if not audit.undecryptable_hubs:
            KeyCheckStore(engine).write_check_value(cipher.encrypt_check_value())
    click.echo(f"{reencrypted:,} of {audit.rows:,} rows re-encrypted")
    if problems := list(_list_problems(audit)):
        raise click.ClickException("; ".join(problems))
    click.echo("no row needs an older key than the newest")
    if len(settings.token_keys) > 1:
        click.echo(KEEP_OLD_KEYS)


def _list_problems(audit: KeyAudit) -> Iterator[str]:
    if audit.undecryptable_hubs:
        yield (
            f"{format_hubs(audit.undecryptable_hubs)}: TOKEN_KEYS does not decrypt it: "
            "put back the key that encrypted it, or have the account install the app again"
        )
    if audit.on_older_key:
        yield (
            f"{audit.on_older_key:,} rows need an older key again: a web or worker still encrypts with it. "
            "Restart them with the new TOKEN_KEYS, and run this again"
        )


@keys.command(
    "lost", short_help="End connections whose key is lost.", epilog=make_epilog("tokenkeeper keys lost", needs=NEEDS)
)
@yes_option
def end_undecryptable(yes: bool) -> None:
    """End the connections whose refresh token none of TOKEN_KEYS decrypts, so that their accounts can install again.

    For when a key is gone for good: put back one that is only missing. Their access tokens are not served any more, and
    the history stays. Connections that a key decrypts are left alone.
    """
    settings = load_settings(*NEEDS)
    with open_database(settings) as engine, track_pages(count_tokens(ConnectionReports(engine))) as track:
        cipher, store = TokenCipher(settings.token_keys), KeyRotationStore(engine)
        undecryptable = read_undecryptable(store, cipher, track)
        rows = undecryptable[TokenPlace.CONNECTIONS]
        if rows and not yes:
            hubs = format_hubs([row.hub_id for row in rows])
            confirm_or_abort(f"No key decrypts {hubs}. End them for good? Each has to be installed again")
        ended = {place: _remove_all(store, place, tokens) for place, tokens in undecryptable.items()}
        KeyCheckStore(engine).write_check_value(cipher.encrypt_check_value())
    if rows:
        click.echo(f"{ended[TokenPlace.CONNECTIONS]:,} connections wait to be installed again")
    else:
        click.echo("TOKEN_KEYS decrypts every refresh token: there is nothing to do")


def _remove_all(store: KeyRotationStore, place: TokenPlace, tokens: Sequence[EncryptedToken]) -> int:
    starts = range(0, len(tokens), PAGE_ROWS)
    return sum(store.remove_undecryptable(place, tokens[start : start + PAGE_ROWS]) for start in starts)
