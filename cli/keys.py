"""`tokenkeeper keys`: make the keys that seal refresh tokens, and move every row to the newest."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import click
from cryptography.fernet import Fernet

from cli.context import database, settings
from cli.output import example, told, watched
from shared.db.lifecycle.key_check import KeyCheckStore
from shared.db.lifecycle.key_rotation import KeyRotationStore
from shared.db.reports.connections import ConnectionReports
from shared.token_cipher import TokenCipher
from shared.workflows.key_rotation import PAGE_ROWS, KeyAudit, count_tokens, read_undecryptable, rotate_keys

HINT = "put it first in TOKEN_KEYS, before the old ones, restart web and worker, then run: tokenkeeper keys rotate"
#: The browser's copy of a sealed grant (web/security/cookies.py) lives a day.
LATER = "installs of the last day may still wait, sealed with an older key: take the old keys out tomorrow"


@click.group(epilog=example("tokenkeeper keys new"))
def keys() -> None:
    """Make and rotate the keys in TOKEN_KEYS."""


@keys.command(epilog=example('TOKEN_KEYS="$(tokenkeeper keys new),$TOKEN_KEYS"'))
def new() -> None:
    """Print a new key for TOKEN_KEYS; nothing is stored."""
    click.echo(Fernet.generate_key().decode())
    if sys.stderr.isatty():
        click.echo(HINT, err=True)


@keys.command("rotate", short_help="Re-seal every row with the newest key.", epilog=example("tokenkeeper keys rotate"))
def rotate_() -> None:
    """Re-seal every row with the newest of TOKEN_KEYS while everything runs, and prove that no row needs an older one.

    It may be stopped and run again at any time.
    """
    ours = settings("DATABASE_URL", "TOKEN_KEYS")
    with database(ours) as engine, watched(count_tokens(ConnectionReports(engine))) as watch:
        cipher = TokenCipher(ours.token_keys)
        resealed, proof = rotate_keys(ConnectionReports(engine), KeyRotationStore(engine), cipher, watch)
        if not proof.undecryptable_hubs:
            KeyCheckStore(engine).write_check_value(cipher.encrypt_check_value())
    click.echo(f"{resealed:,} of {proof.rows:,} rows sealed anew")
    if problems := list(_problems(proof)):
        raise click.ClickException("; ".join(problems))
    click.echo("no row needs an older key than the newest")
    if len(ours.token_keys) > 1:
        click.echo(LATER)


@keys.command(short_help="End connections whose key is lost.", epilog=example("tokenkeeper keys lost"))
@click.option("--yes", is_flag=True, help="Do not ask.")
def lost(yes: bool) -> None:
    """End the connections whose refresh token none of TOKEN_KEYS opens, so that their accounts can install again.

    For when a key is gone for good: put back one that is only missing. Their access tokens are not served any more, and
    the history stays. Connections that open are left alone.
    """
    ours = settings("DATABASE_URL", "TOKEN_KEYS")
    with database(ours) as engine, watched(count_tokens(ConnectionReports(engine))) as watch:
        cipher, resealing = TokenCipher(ours.token_keys), KeyRotationStore(engine)
        rows = [row for page in read_undecryptable(ConnectionReports(engine), cipher, watch) for row in page]
        if rows and not yes:
            many = told([hub_id for hub_id, _ in rows])
            click.confirm(f"No key opens {many}. End them for good? Each has to be installed again", abort=True)
        ended = sum(
            resealing.disconnect_undecryptable(rows[at : at + PAGE_ROWS]) for at in range(0, len(rows), PAGE_ROWS)
        )
        KeyCheckStore(engine).write_check_value(cipher.encrypt_check_value())
    click.echo(f"{ended:,} connections wait to be installed again")


def _problems(proof: KeyAudit) -> Iterator[str]:
    if proof.undecryptable_hubs:
        many = told(proof.undecryptable_hubs)
        yield f"{many}: does not open with TOKEN_KEYS: put the key back that sealed it, or install anew"
    if proof.on_older_key:
        yield (
            f"{proof.on_older_key:,} rows need an older key again: a web or worker still seals with it. "
            "Restart them with the new TOKEN_KEYS, and run this again"
        )
