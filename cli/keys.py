"""`tokenkeeper keys`: make the keys that seal refresh tokens, and move every row to the newest."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import click
from cryptography.fernet import Fernet

from cli.ready import database, settings
from cli.resealing import PAGE, Proof, closed, holding_tokens, rotate
from cli.terminal import example, told, watched
from shared.db.resealing import Resealing
from shared.db.roster import Roster
from shared.db.store import ConnectionStore
from shared.vault import Vault

HINT = "put it first in TOKEN_KEYS, before the old ones, restart web and worker, then run: tokenkeeper keys rotate"
#: The browser's copy of a sealed grant (web/cookies.py) lives a day.
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
    with database(ours) as engine, watched(holding_tokens(Roster(engine))) as watch:
        vault = Vault(ours.token_keys)
        resealed, proof = rotate(Roster(engine), Resealing(engine), vault, watch)
        if not proof.closed:
            ConnectionStore(engine, lease_seconds=ours.lease_seconds).vouch(vault.seal_check())
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
    with database(ours) as engine, watched(holding_tokens(Roster(engine))) as watch:
        vault, resealing = Vault(ours.token_keys), Resealing(engine)
        rows = [row for page in closed(Roster(engine), vault, watch) for row in page]
        if rows and not yes:
            many = told([hub_id for hub_id, _ in rows])
            click.confirm(f"No key opens {many}. End them for good? Each has to be installed again", abort=True)
        ended = sum(resealing.forget(rows[at : at + PAGE]) for at in range(0, len(rows), PAGE))
        ConnectionStore(engine, lease_seconds=ours.lease_seconds).vouch(vault.seal_check())
    click.echo(f"{ended:,} connections wait to be installed again")


def _problems(proof: Proof) -> Iterator[str]:
    if proof.closed:
        yield f"{told(proof.closed)}: does not open with TOKEN_KEYS: put the key back that sealed it, or install anew"
    if proof.stale:
        yield (
            f"{proof.stale:,} rows need an older key again: a web or worker still seals with it. "
            "Restart them with the new TOKEN_KEYS, and run this again"
        )
